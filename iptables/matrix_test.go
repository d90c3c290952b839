package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	localPod  = "10.1.0.5"
	remotePod = "10.1.1.5"
)

// matrix says, for each policy, whom a client reaches at which frontend, and whether it is masqueraded ("M") or not
// ("-"): all endpoints, the local one, or none.
var matrix = []struct {
	from, to                              string
	cluster, externalLocal, internalLocal string
}{
	{"pod", "cluster", "all -", "all -", "loc -"},
	{"pod", "nodeport", "all M", "all -", "all M"},
	{"pod", "external", "all M", "all -", "all M"},
	{"pod", "lb", "all M", "all -", "all M"},
	{"node", "cluster", "all M", "all M", "loc M"},
	{"node", "nodeport", "all M", "all M", "all M"},
	{"node", "external", "all M", "all M", "all M"},
	{"node", "lb", "all M", "all M", "all M"},
	{"outside", "cluster", "all M", "all M", "loc M"},
	{"outside", "nodeport", "all M", "loc -", "all M"},
	{"outside", "external", "all M", "loc -", "all M"},
	{"outside", "lb", "all M", "loc -", "all M"},
}

// variant is a way to recognise pods, and how it changes the matrix.
type variant struct {
	name          string
	source        func(f family) proxy.PodSource
	masqueradeAll bool
}

func (v variant) expect(from, to, policy, plain string) string {
	blind := v.source(family(proxy.IPv4)).Kind == proxy.PodSourceNone
	switch {
	case to == "cluster" && v.masqueradeAll:
		return strings.Replace(plain, "-", "M", 1)
	case to == "cluster" && blind:
		return strings.Replace(plain, "M", "-", 1)
	case to != "cluster" && blind && from == "pod" && policy == "externalLocal":
		return "loc -"
	}
	return plain
}

func variants() []variant {
	none := func(family) proxy.PodSource { return proxy.PodSource{} }
	prefix := func(f family) proxy.PodSource {
		return proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: f.prefix("10.1.0.0/16")}
	}
	iface := func(kind proxy.PodSourceKind, name string) func(family) proxy.PodSource {
		return func(family) proxy.PodSource { return proxy.PodSource{Kind: kind, Interface: name} }
	}
	return []variant{
		{"prefix", prefix, false},
		{"prefix, masquerade all", prefix, true},
		{"interface", iface(proxy.PodSourceInterface, podIface), false},
		{"interface prefix", iface(proxy.PodSourceInterfacePrefix, podIface[:3]), false},
		{"none", none, false},
		{"none, masquerade all", none, true},
	}
}

var frontends = map[string]netip.AddrPort{
	"cluster":  netip.MustParseAddrPort("10.96.0.10:80"),
	"external": netip.MustParseAddrPort("198.51.100.1:80"),
	"lb":       netip.MustParseAddrPort("198.51.100.2:80"),
	"nodeport": netip.MustParseAddrPort(nodeIP + ":30080"),
}

func (f family) frontend(name string) netip.AddrPort {
	return f.port(frontends[name].Addr().String(), frontends[name].Port())
}

func exposed(policy string) service {
	return service{
		name: "web", clusterIP: "10.96.0.10", external: []string{"198.51.100.1"}, lbs: []string{"198.51.100.2"}, nodePort: 30080,
		externalLocal: policy == "externalLocal", internalLocal: policy == "internalLocal",
		local: []string{localPod}, remote: []string{remotePod},
	}
}

func (f family) expected(cell string) []string {
	pool, masquerade, _ := strings.Cut(cell, " ")
	var all []string
	for _, a := range map[string][]string{"all": {localPod, remotePod}, "loc": {localPod}}[pool] {
		outcome := f.port(a, 8080).String()
		if masquerade == "M" {
			outcome += " masquerade"
		}
		all = append(all, outcome)
	}
	slices.Sort(all)
	return all
}

func TestPolicyMatrix(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		for _, v := range variants() {
			for _, policy := range []string{"cluster", "externalLocal", "internalLocal"} {
				n := f.node()
				n.PodSource, n.MasqueradeAll = v.source(f), v.masqueradeAll
				_, k := applied(t, snapshot(n, exposed(policy)))
				checkGraph(t, k)
				tr := k.tracer(t, n)
				for _, row := range matrix {
					cell := map[string]string{"cluster": row.cluster, "externalLocal": row.externalLocal, "internalLocal": row.internalLocal}[policy]
					want := f.expected(v.expect(row.from, row.to, policy, cell))
					got := tr.trace(f.from(row.from, f.frontend(row.to)))
					if diff := cmp.Diff(want, got.outcomes()); diff != "" || !got.uniform() {
						t.Errorf("%s, %s, from %s to %s: %v\n%s", v.name, policy, row.from, row.to, got, diff)
					}
				}
			}
		}
	})
}

func TestLocalPolicyWithoutLocalBackend(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		s := exposed("externalLocal")
		s.internalLocal, s.local = true, nil
		n := f.node()
		_, k := applied(t, snapshot(n, s))
		checkGraph(t, k)
		tr := k.tracer(t, n)
		backend := f.port(remotePod, 8080).String()
		for _, c := range []struct{ from, to, want string }{
			{"pod", "cluster", "drop"},
			{"node", "cluster", "drop"},
			{"outside", "cluster", "drop"},
			{"pod", "lb", backend},
			{"node", "lb", backend + " masquerade"},
			{"outside", "lb", "drop"},
			{"outside", "external", "drop"},
			{"outside", "nodeport", "drop"},
			{"node", "nodeport", backend + " masquerade"},
		} {
			checkOutcome(t, tr, f.from(c.from, f.frontend(c.to)), c.from+" to "+c.to, c.want)
		}
	})
}

func TestWithoutEndpointsAllIsRejected(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		for _, policy := range []string{"cluster", "externalLocal", "internalLocal"} {
			s := exposed(policy)
			s.local, s.remote = nil, nil
			n := f.node()
			_, k := applied(t, snapshot(n, s))
			checkGraph(t, k)
			tr := k.tracer(t, n)
			for _, from := range []string{"pod", "node", "outside"} {
				for _, to := range []string{"cluster", "external", "lb", "nodeport"} {
					p := f.from(from, f.frontend(to))
					checkOutcome(t, tr, p, policy+" "+from+" to "+to, "reject")
					p.replies = true
					checkOutcome(t, tr, p, policy+" established "+from+" to "+to, "pass")
				}
			}
		}
	})
}

func checkOutcome(t *testing.T, tr *tracer, p packet, what string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, tr.trace(p).outcomes()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestUnservedClusterAddresses(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		n := f.node()
		_, k := applied(t, snapshot(n, exposed("cluster")))
		tr := k.tracer(t, n)
		for _, from := range []string{"pod", "node", "outside"} {
			checkOutcome(t, tr, f.from(from, f.port("10.96.0.10", 81)), from+" to another port", "reject")
			checkOutcome(t, tr, f.from(from, f.port("10.96.77.1", 80)), from+" to an unallocated address", "drop")
			checkOutcome(t, tr, f.from(from, f.port("198.51.100.1", 81)), from+" to another port of an external IP", "pass")
			other := f.from(from, f.port("10.96.0.10", 80))
			other.protocol = proxy.UDP
			checkOutcome(t, tr, other, from+" with another protocol", "reject")
		}
	})
}

func TestSourceRanges(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		s := exposed("cluster")
		s.ranges = []string{"192.0.2.0/24", "203.0.113.0/29"}
		n := f.node()
		d, k := applied(t, snapshot(n, s))
		checkGraph(t, k)
		tr := k.tracer(t, n)
		served := f.expected("all M")
		check := func(from string, last string, to string, want ...string) {
			t.Helper()
			p := f.from("outside", f.frontend(to))
			p.src = f.addr(last)
			checkOutcome(t, tr, p, from+" to "+to, want...)
		}
		check("allowed", "192.0.2.200", "lb", served...)
		check("allowed", "203.0.113.7", "lb", served...)
		check("not allowed", "203.0.113.8", "lb", "drop")
		check("anybody", "203.0.113.8", "external", served...)
		check("anybody", "203.0.113.8", "nodeport", served...)
		checkOutcome(t, tr, f.from("pod", f.frontend("lb")), "pod, not allowed", "drop")

		s.local, s.remote = nil, nil
		mustApply(t, d, snapshot(n, s))
		checkGraph(t, k)
		check("allowed, no endpoints", "192.0.2.200", "lb", "reject")
		check("allowed, no endpoints", "203.0.113.7", "lb", "reject")
		check("not allowed, no endpoints", "203.0.113.8", "lb", "drop")
	})
}

func TestSourceRangesAreThoseOfTheFrontend(t *testing.T) {
	n := v4.node()
	sp := &proxy.ServicePort{
		Name:    proxy.ServicePortName{Namespace: "ns", Name: "two", Protocol: proxy.TCP},
		Cluster: []proxy.Backend{{Addr: v4.port(remotePod, 8080)}},
	}
	for addr, allowed := range map[string]string{"198.51.100.1": "192.0.2.0/24", "198.51.100.2": "203.0.113.0/24"} {
		sp.Frontends = append(sp.Frontends, proxy.Frontend{
			Kind: proxy.LoadBalancerIP, Addr: v4.port(addr, 80), Allowed: []netip.Prefix{v4.prefix(allowed)},
			Routes: proxy.Every(proxy.Route{Verdict: proxy.Forward}),
		})
	}
	_, k := applied(t, proxy.NewSnapshot(n, map[proxy.ServicePortName]*proxy.ServicePort{sp.Name: sp}))
	checkGraph(t, k)
	tr := k.tracer(t, n)
	checkOutcome(t, tr, v4.from("outside", v4.port("198.51.100.1", 80)), "allowed at the other frontend", "drop")
	checkOutcome(t, tr, v4.from("outside", v4.port("198.51.100.2", 80)), "allowed", v4.port(remotePod, 8080).String())
}

func TestNodePortAddresses(t *testing.T) {
	const other = "192.168.0.2"
	bothFamilies(t, func(t *testing.T, f family) {
		loopback := netip.AddrPortFrom(f.from("loopback", netip.AddrPort{}).src, 30080)
		served := f.expected("all M")
		unserved := "pass"
		for _, c := range []struct {
			name                         string
			addrs                        proxy.NodePortAddrs
			first, second, loop, outside bool // served
		}{
			{"all", proxy.NodePortAddrs{All: true}, true, true, false, false},
			{"all and localhost", proxy.NodePortAddrs{All: true, Localhost: true}, true, true, true, false},
			{"one", proxy.NodePortAddrs{Addrs: []netip.Addr{f.addr(nodeIP)}}, true, false, false, false},
			{"one and localhost", proxy.NodePortAddrs{Addrs: []netip.Addr{f.addr(nodeIP)}, Localhost: true}, true, false, true, false},
			{"none", proxy.NodePortAddrs{}, false, false, false, false},
		} {
			for _, served := range [][]string{served, {"reject"}} {
				s := exposed("cluster")
				if served[0] == "reject" {
					s.local, s.remote = nil, nil
				}
				n := f.node()
				n.NodePorts = c.addrs
				n.Addrs = append(n.Addrs, f.addr(other))
				_, k := applied(t, snapshot(n, s))
				checkGraph(t, k)
				tr := k.tracer(t, n)
				check := func(from string, to netip.AddrPort, yes bool) {
					t.Helper()
					want := []string{unserved}
					if yes {
						want = served
					}
					checkOutcome(t, tr, f.from(from, to), fmt.Sprintf("%s: %s to %v", c.name, from, to), want...)
				}
				for _, from := range []string{"pod", "node", "outside"} {
					check(from, f.port(nodeIP, 30080), c.first)
					check(from, f.port(other, 30080), c.second)
					check(from, f.port("198.51.100.99", 30080), c.outside)
				}
				// IPv6 has no way to route what was sent to the loopback address.
				check("loopback", loopback, c.loop && proxy.Family(f) == proxy.IPv4)
			}
		}
	})
}

func TestLoopbackIsGuardedFromNeighbours(t *testing.T) {
	f := family(proxy.IPv4)
	n := f.node()
	n.NodePorts.Localhost = true
	s := exposed("cluster")
	d, k := applied(t, snapshot(n, s))
	tr := k.tracer(t, n)
	local := netip.MustParseAddrPort("127.0.0.1:22")
	checkOutcome(t, tr, f.from("outside", local), "neighbour", "drop")
	checkOutcome(t, tr, f.from("loopback", local), "node itself", "pass")
	established := f.from("outside", local)
	established.replies = true
	checkOutcome(t, tr, established, "established", "pass")

	closed := *n
	closed.NodePorts.Localhost = false
	k.forget()
	mustApply(t, d, snapshot(&closed, s))
	if want := []string{"unjump", "restore", "jumps"}; !slices.Equal(k.calls, want) {
		t.Errorf("calls %v, want %v", k.calls, want)
	}
	checkOutcome(t, tr, f.from("outside", local), "no node ports at loopback addresses", "pass")
	if want := fresh(t, snapshot(&closed, s)); k.Dump() != want {
		t.Errorf("unlike a fresh start (-want +got):\n%s", cmp.Diff(want, k.Dump()))
	}
}

func TestHairpinIsMasqueraded(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		for _, policy := range []string{"cluster", "externalLocal", "internalLocal"} {
			s := exposed(policy)
			n := f.node()
			_, k := applied(t, snapshot(n, s))
			p := f.from("pod", f.frontend("cluster"))
			p.src = f.addr(localPod)
			got := k.tracer(t, n).trace(p)
			want := map[string]bool{f.port(localPod, 8080).String() + " masquerade": true, f.port(remotePod, 8080).String(): policy != "internalLocal"}
			for outcome, expected := range want {
				if _, ok := got[outcome]; ok != expected {
					t.Errorf("%s: %q is %v, want %v: %v", policy, outcome, ok, expected, got)
				}
			}
		}
	})
}

func TestMarksOfOthersAreServedAndTheirBitCleared(t *testing.T) {
	f := family(proxy.IPv4)
	n := f.node()
	_, k := applied(t, snapshot(n))
	p := f.from("pod", f.port("192.0.2.9", 443))
	p.marked = true
	tr := k.tracer(t, n)
	flows := tr.through([]flow{{packet: p, chance: 1, mark: 0x4001}}, tr.hooks(p))
	if len(flows) != 1 || !flows[0].masqueraded || flows[0].mark != 1 {
		t.Errorf("a marked packet became %+v", flows)
	}
	if rules := k.Rules(nat, markChain); len(rules) != 1 || !strings.Contains(rules[0], "0x4000/0x4000") {
		t.Errorf("%s: %q", markChain, rules)
	}
}

func TestInvalidPacketsAreDroppedOnRequest(t *testing.T) {
	for _, drop := range []bool{true, false} {
		k := newKernel(proxy.IPv4)
		d := newDataplane(Config{DropInvalid: drop}, k)
		mustApply(t, d, snapshot(family(proxy.IPv4).node()))
		found := slices.ContainsFunc(k.Rules(filter, forwardChain), func(r string) bool { return strings.Contains(r, "INVALID") })
		if found != drop {
			t.Errorf("drop %v: rule for invalid packets is there: %v", drop, found)
		}
	}
}

func TestHealthCheckPortsAreAccepted(t *testing.T) {
	f := family(proxy.IPv4)
	s := exposed("externalLocal")
	s.health = 31000
	other := service{name: "other", clusterIP: "10.96.0.11", health: 31001}
	d, k := applied(t, snapshot(f.node(), s, other))
	accepts := func(port string) bool { return strings.Contains(k.Dump(), " --dport "+port+" -j ACCEPT\n") }
	if !accepts("31000") || !accepts("31001") {
		t.Errorf("two ports are not accepted:\n%s", k.Dump())
	}
	s.health = 0
	mustApply(t, d, snapshot(f.node(), s, other))
	if accepts("31000") || !accepts("31001") {
		t.Errorf("not exactly one of two ports is accepted:\n%s", k.Dump())
	}
}

// TestRefusalsSpareTranslatedPackets has a backend in the host network, at an address and port that another
// Service without endpoints claims.
func TestRefusalsSpareTranslatedPackets(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		host := service{name: "host", clusterIP: "10.96.0.1", local: []string{nodeIP}}
		claims := service{name: "claims", clusterIP: "10.96.0.2", port: 8080, external: []string{nodeIP}}
		port := service{name: "port", clusterIP: "10.96.0.3", nodePort: 8080}
		for _, dead := range []service{claims, port} {
			n := f.node()
			_, k := applied(t, snapshot(n, host, dead))
			tr := k.tracer(t, n)
			backend := f.port(nodeIP, 8080)
			checkOutcome(t, tr, f.from("outside", backend), "outside to the refused address", "reject")
			for _, from := range []string{"pod", "outside"} {
				got := tr.trace(f.from(from, f.port("10.96.0.1", 80)))
				if got["reject"]+got["drop"] > 0 {
					t.Errorf("%s, from %s: %v", dead.name, from, got)
				}
			}
		}
	})
}
