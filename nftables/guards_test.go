package nftables

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// How long to wait for packets that must arrive, and for those that must not.
var (
	patience = lab.Patient(10 * time.Second)
	moment   = lab.Patient(300 * time.Millisecond)
)

// guarded is a lab in which the node serves one Service, whose backends are three of the node's four pods. The tests that use it
// put the table into a state that packets see for an instant while a transaction is committed, and keep it there; then
// they take a guard away, to see that it was the guard that helped.
type guarded struct {
	*lab.Lab
	t     *testing.T
	f     inFamily
	table string // family and name, as nft wants them
}

const guardedNodePort = 30080

func startGuarded(t *testing.T, f inFamily, affinity time.Duration) *guarded {
	t.Helper()
	g := &guarded{lab.Start(t, lab.Config{Pods: 4}), t, f, string(nft.Family(proxy.Family(f))) + " " + Table}
	var backends []netip.AddrPort
	for _, pod := range g.backends() {
		if err := pod.Serve(proxy.TCP, 8080); err != nil {
			t.Fatal(err)
		}
		backends = append(backends, netip.AddrPortFrom(pod.Addr(proxy.IPv4), 8080))
	}
	web := service{name: "web", clusterIP: "10.96.0.10", nodePort: guardedNodePort, affinity: affinity, backends: backends}
	g.onNode(func() { mustApply(t, newTestDataplane(f), snapshot(f.node(), web)) })
	return g
}

func (g *guarded) backends() []*lab.Host { return g.Pods[:3] }

// inGuarded runs a test in both families.
func inGuarded(t *testing.T, affinity time.Duration, test func(g *guarded)) {
	for _, f := range proxy.Families {
		t.Run(fmt.Sprint(f), func(t *testing.T) { test(startGuarded(t, inFamily(f), affinity)) })
	}
}

func (g *guarded) onNode(f func()) {
	g.t.Helper()
	if err := g.Node.Do(func() error { f(); return nil }); err != nil {
		g.t.Fatal(err)
	}
}

// nft runs a command in which %s is the table.
func (g *guarded) nft(command string) {
	g.t.Helper()
	g.onNode(func() { runNFT(g.t, fmt.Sprintf(command, g.table)) })
}

// frontends are what clients connect to.
func (g *guarded) frontends() map[string]netip.AddrPort {
	return map[string]netip.AddrPort{
		"ClusterIP": netip.AddrPortFrom(g.f.addr("10.96.0.10"), 80),
		"NodePort":  netip.AddrPortFrom(g.Node.Addr(proxy.Family(g.f)), guardedNodePort),
	}
}

// probe connects n times from everywhere, and counts what became of that.
func (g *guarded) probe(to netip.AddrPort, n int, timeout time.Duration) map[lab.Result]int {
	outcomes := make(chan lab.Outcome)
	everywhere := []*lab.Host{g.Client, g.Pods[3], g.Node}
	for _, from := range everywhere {
		go func() {
			for range n {
				outcomes <- from.Probe(lab.Probe{To: to, Protocol: proxy.TCP, Timeout: timeout})
			}
		}()
	}
	results := map[lab.Result]int{}
	for range n * len(everywhere) {
		results[(<-outcomes).Result]++
	}
	return results
}

// wantServed wants every connection to all frontends to succeed.
func (g *guarded) wantServed(when string) {
	g.t.Helper()
	for name, to := range g.frontends() {
		results := g.probe(to, 16, patience)
		if len(results) != 1 || results[lab.Answered] == 0 {
			g.t.Errorf("%s: %s: %v, want only answers", when, name, results)
		}
	}
}

// wantFailures wants some connections to fail in that way, now that there is no guard.
func (g *guarded) wantFailures(when string, ways ...lab.Result) {
	g.t.Helper()
	for name, to := range g.frontends() {
		results := g.probe(to, 4, moment)
		if !slices.ContainsFunc(ways, func(r lab.Result) bool { return results[r] > 0 }) {
			g.t.Errorf("%s: %s: %v, want some to fail: the test does not show what the guard is good for", when, name, results)
		}
	}
}

// handled is a rule in the kernel.
type handled struct{ text, handle string }

var ruleLine = regexp.MustCompile(`(?m)^\t\t(\S.*) # handle (\d+)$`)

// rules are those of a chain.
func (g *guarded) rules(chain string) []handled {
	var all []handled
	g.onNode(func() {
		args := append([]string{"-a", "list", "chain"}, append(strings.Fields(g.table), chain)...)
		for _, m := range ruleLine.FindAllStringSubmatch(runNFT(g.t, args...), -1) {
			all = append(all, handled{m[1], m[2]})
		}
	})
	return slices.DeleteFunc(all, func(r handled) bool { return strings.HasPrefix(r.text, "type ") })
}

// chains are those whose name has a part.
func (g *guarded) chains(part string) []string {
	var all []string
	g.onNode(func() {
		for name := range read(g.t, g.f).Chains {
			if strings.Contains(name, part) {
				all = append(all, name)
			}
		}
	})
	return all
}

// deleteRules deletes the rules of a chain from the n-th on that contain a text, and fails if there are none.
func (g *guarded) deleteRules(chain, text string, n int) {
	g.t.Helper()
	found := false
	for _, r := range g.rules(chain) {
		if !strings.Contains(r.text, text) {
			continue
		}
		if n--; n < 0 {
			found = true
			g.nft("delete rule %s " + chain + " handle " + r.handle)
		}
	}
	if !found {
		g.t.Fatalf("chain %s has no such guard: %q", chain, g.rules(chain))
	}
}

// A packet that is on its way when endpoints go draws one of the slots that there were, and finds it empty.
func TestKernelGuardSlotZeroStandsInForSlotsThatAreGone(t *testing.T) {
	for _, affinity := range []time.Duration{0, time.Hour} {
		inGuarded(t, affinity, func(g *guarded) {
			for _, slot := range []string{"0:1", "0:2"} {
				g.nft("delete element %s endpoints { " + g.f.addr("10.96.0.10").String() + " . tcp . 80 . " + slot + " }")
				g.nft("delete element %s node-port-endpoints { tcp . 30080 . " + slot + " }")
			}
			if affinity > 0 { // nobody is remembered with a backend: each connection draws a slot
				g.nft("flush map %s sticky-ids")
			}
			g.wantServed("with only slot 0")
			for _, chain := range g.chains("lb-3") {
				g.deleteRules(chain, "endpoints", 1) // all look-ups but the first
			}
			g.wantFailures("without the look-up of slot 0", lab.Silence)
		})
	}
}

// A frontend's element is replaced whenever its number of backends changes. Kernels up to 6.16 may miss it at that moment.
func TestKernelGuardSecondLookUpFindsWhatTheFirstMissed(t *testing.T) {
	inGuarded(t, 0, func(g *guarded) {
		for _, chain := range []string{natPrerouting, natOutput} {
			g.missFirstLookUp(chain)
		}
		g.wantServed("a first look-up that misses")
		for _, chain := range []string{natPrerouting, natOutput} {
			g.deleteRules(chain, "@"+services.Name, 1)
			g.deleteRules(chain, "@"+nodePorts.Name, 1)
		}
		g.wantFailures("with one look-up", lab.Silence)
	})
}

// missFirstLookUp hides the ports of frontends from the first of both look-ups.
func (g *guarded) missFirstLookUp(chain string) {
	g.t.Helper()
	const hiding = 1000
	lookups := slices.DeleteFunc(g.rules(chain), func(r handled) bool { return !strings.Contains(r.text, "@"+services.Name) })
	if len(lookups) != 2 {
		g.t.Fatalf("chain %s has look-ups %q, want two", chain, lookups)
	}
	for _, port := range []int{80, guardedNodePort} {
		g.nft(fmt.Sprintf("insert rule %%s %s handle %s tcp dport %d tcp dport set %d", chain, lookups[0].handle, port, port+hiding))
		g.nft(fmt.Sprintf("insert rule %%s %s handle %s tcp dport %d tcp dport set %d", chain, lookups[1].handle, port+hiding, port))
	}
}

// A packet that both look-ups missed waits for its client to send it again. Refused, it would have ended the connection.
func TestKernelGuardKnownFrontendIsNotRefused(t *testing.T) {
	inGuarded(t, 0, func(g *guarded) {
		var found *nft.State
		g.onNode(func() { found = read(g.t, g.f) })
		hide := func() {
			for _, in := range []*nft.Set{services, nodePorts} {
				g.nft("flush map %s " + in.Name)
			}
		}
		show := func() {
			for _, in := range []*nft.Set{services, nodePorts} {
				for _, e := range found.Elements[in.Name] {
					g.nft("add element %s " + in.Name + " { " + e.Key + " : " + e.Value + " }")
				}
			}
		}
		hide()
		results := make(chan map[lab.Result]int)
		for _, to := range g.frontends() {
			go func() { results <- g.probe(to, 1, patience) }()
		}
		time.Sleep(moment) // who is refused is refused by then
		show()
		for range g.frontends() {
			if got := <-results; len(got) != 1 || got[lab.Answered] == 0 {
				g.t.Errorf("after look-ups that missed: %v, want only answers", got)
			}
		}
		hide()
		g.deleteRules(refuse, "@"+frontends.Name, 0)
		g.deleteRules(refuseNodePorts, "@"+frontendPorts.Name, 0)
		g.wantFailures("with the frontend forgotten", lab.Refused, lab.Reset)
	})
}
