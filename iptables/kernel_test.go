package iptables

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// inKernels runs a test in the real kernel, once for each backend and family, in a network namespace
// of its own. It takes root and both backends of iptables.
func inKernels(t *testing.T, test func(t *testing.T, ipt *xtables.Runner, f family)) {
	for _, backend := range xtables.Backends {
		for _, f := range proxy.Families {
			t.Run(fmt.Sprintf("%s/%v", backend, f), func(t *testing.T) {
				inNamespace(t, func() {
					ipt, err := xtables.New(f, xtables.Config{Backend: backend})
					if err != nil {
						t.Fatal(err)
					}
					if err := objects.Make(); err != nil {
						t.Fatal(err)
					}
					test(t, ipt, family(f))
				})
			})
		}
	}
}

func inNamespace(t *testing.T, test func()) {
	t.Helper()
	ns := namespace(t)
	if err := ns.Do(func() error { test(); return nil }); err != nil {
		t.Fatal(err)
	}
}

func namespace(t *testing.T) *lab.Namespace {
	t.Helper()
	ns, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return ns
}

// run runs a program in the namespace of the calling thread.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// held is what a kernel holds of ours: chains with the number of their rules, and the jumps to them.
func held(t *testing.T, ipt xtables.Interface, f family) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, table := range []string{nat, filter} {
		for _, prefix := range []string{xtables.DefaultPrefix, markChain} {
			chains, err := ipt.Chains(t.Context(), table, prefix)
			if err != nil {
				t.Fatal(err)
			}
			for name, rules := range chains {
				all[table+" "+name] = rules
			}
		}
	}
	runner, ok := ipt.(*xtables.Runner)
	for _, j := range jumps(f.node()) {
		key := fmt.Sprintf("%s %s jumps to %s", j.Table, j.Chain, j.Target)
		switch {
		case !ok:
			all[key] = 1
		case strings.Contains(run(t, command(runner, f), "-t", j.Table, "-S", j.Chain), "-j "+j.Target+"\n"):
			all[key] = 1
		}
	}
	return all
}

func command(ipt *xtables.Runner, f family) string {
	name := "iptables"
	if proxy.Family(f) == proxy.IPv6 {
		name = "ip6tables"
	}
	return name + "-" + string(ipt.Backend())
}

func TestKernelHoldsWhatGoldenFilesSay(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		for _, s := range samples(f) {
			// Each takes over from the one before, as after a restart.
			mustApply(t, newDataplane(s.cfg, ipt), s.snap)
			if diff := cmp.Diff(held(t, s.kernel(t), f), held(t, ipt, f)); diff != "" {
				t.Errorf("%s: the kernel differs (-want +got):\n%s", s.name, diff)
			}
		}
	})
}

func TestKernelFollowsDifferences(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		d := newDataplane(Config{}, ipt)
		all := samples(f)
		for _, s := range slices.Concat(all, all) {
			report := mustApply(t, d, s.snap)
			if len(report.SetAside) > 0 {
				t.Errorf("%s: set aside %v", s.name, report.SetAside)
			}
			fake := sample{s.name, Config{}, s.snap}.kernel(t)
			if diff := cmp.Diff(held(t, fake, f), held(t, ipt, f)); diff != "" {
				t.Errorf("%s: the kernel differs (-want +got):\n%s", s.name, diff)
			}
		}
	})
}

// deepest is a snapshot in which a packet passes as many chains as ever: crafted external addresses make
// the tree deep, source ranges, policies, groups of backends and affinity do the rest.
func deepest(f family) *proxy.Snapshot {
	var crafted []string
	addr := []byte(strings.Repeat("0", 32))
	for i := range addr {
		for _, digit := range []byte("123456789") {
			one := slices.Clone(addr)
			one[i] = digit
			crafted = append(crafted, hexAddr(f, one))
		}
	}
	slices.Sort(crafted)
	s := service{
		name: "deep", clusterIP: "10.96.0.1", lbs: slices.Compact(crafted), ranges: []string{"192.0.2.0/24"}, nodePort: 30080,
		externalLocal: true, affinity: time.Hour, local: many("10.1.0.", 40), remote: many("10.1.1.", 40),
	}
	return snapshot(f.node(), s)
}

// hexAddr makes an address of 32 digits, of which IPv4 takes the first eight.
func hexAddr(f family, digits []byte) string {
	if proxy.Family(f) == proxy.IPv4 {
		var b [4]byte
		if _, err := fmt.Sscanf(string(digits[:8]), "%02x%02x%02x%02x", &b[0], &b[1], &b[2], &b[3]); err != nil {
			panic(err)
		}
		return fmt.Sprintf("%d.%d.%d.%d", b[0], b[1], b[2], b[3])
	}
	var groups []string
	for group := range slices.Chunk(digits, 4) {
		groups = append(groups, string(group))
	}
	return strings.Join(groups, ":")
}

func TestKernelAcceptsTheDeepestNesting(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		snap := deepest(f)
		report := mustApply(t, newDataplane(Config{}, ipt), snap)
		if len(report.SetAside) > 0 {
			t.Fatalf("set aside: %v", report.SetAside)
		}
		_, k := applied(t, snap)
		checkGraph(t, k)
		if got := k.descend(t, nat, "PREROUTING", map[string]bool{}) - 1; got != maxNesting {
			t.Errorf("chains nest %d deep; the test should reach %d", got, maxNesting)
		}
		if diff := cmp.Diff(held(t, k, f), held(t, ipt, f)); diff != "" {
			t.Errorf("the kernel differs (-want +got):\n%s", diff)
		}
	})
}

func TestKernelAcceptsTheLongestNames(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		long := snapshot(f.node(), exposed("externalLocal"), numbered(1, remotePod))
		ports := map[proxy.ServicePortName]*proxy.ServicePort{}
		for _, sp := range long.All() {
			sp.Name.Namespace, sp.Name.Port = strings.Repeat("n", 63), strings.Repeat("p", 15)
			sp.Name.Name += strings.Repeat("s", 63-len(sp.Name.Name))
			ports[sp.Name] = sp
		}
		report := mustApply(t, newDataplane(Config{}, ipt), proxy.NewSnapshot(f.node(), ports))
		if len(report.SetAside) > 0 {
			t.Errorf("set aside: %v", report.SetAside)
		}
		for name := range ports {
			if rules := run(t, command(ipt, f)+"-save"); !strings.Contains(rules, name.String()+" load balancer IP") &&
				!strings.Contains(rules, name.String()+" cluster IP") {
				t.Errorf("no rule is about %v:\n%s", name, rules)
			}
		}
	})
}

// TestKernelRemembersClientsAcrossARestart rewrites the rules that refer to a list of clients: the kernel must not
// let go of the list meanwhile.
func TestKernelRemembersClientsAcrossARestart(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		s := exposed("cluster")
		s.affinity = time.Hour
		snap := snapshot(f.node(), s)
		mustApply(t, newDataplane(Config{}, ipt), snap)
		sp := snap.Get(proxy.ServicePortName{Namespace: "ns", Name: "web", Port: "p", Protocol: proxy.TCP})
		list := "/proc/thread-self/net/xt_recent/" + endpointOf(sp, sp.Cluster[0])
		client := f.addr(outsideIP)
		if err := os.WriteFile(list, []byte("+"+client.String()), 0); err != nil {
			t.Fatal(err)
		}
		restarted := newDataplane(Config{}, ipt)
		restarted.batch = 1
		mustApply(t, restarted, snap)
		known, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(known), "src="+client.StringExpanded()+" ") {
			t.Errorf("known clients: %q", known)
		}
	})
}

// TestKernelDamageIsNoticedAndRepaired damages tables as other programs do.
func TestKernelDamageIsNoticedAndRepaired(t *testing.T) {
	for _, backend := range xtables.Backends {
		for _, damage := range []struct{ name, command string }{
			{"nat flushed", "iptables-B -t nat -F"},
			{"all flushed", "iptables-B -t nat -F; iptables-B -t nat -X; iptables-B -F; iptables-B -X"},
			{"one rule deleted", "iptables-B -t filter -D SLUICE-FORWARD 1"},
			{"one chain emptied", "iptables-B -t nat -F SLUICE-POSTROUTING"},
			{"one jump deleted", "iptables-B -t nat -D PREROUTING 1"},
			{"tables deleted", "nft delete table ip nat; nft delete table ip filter"},
		} {
			if backend == xtables.Legacy && strings.HasPrefix(damage.command, "nft") {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", backend, damage.name), func(t *testing.T) {
				ns := namespace(t)
				command := strings.ReplaceAll(damage.command, "-B", "-"+string(backend))
				if err := ns.Do(func() error { damageAndRepair(t, ns, backend, command); return nil }); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func damageAndRepair(t *testing.T, ns *lab.Namespace, backend xtables.Backend, command string) {
	made, err := NewMode(Config{Backend: backend}).New(proxy.IPv4)
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*dataplane)
	ipt := d.ipt.Interface.(*xtables.Runner)
	snap := snapshot(v4.node(), exposed("externalLocal"))
	mustApply(t, d, snap)
	want := held(t, ipt, v4)

	doubts := watch(t, ns, d)
	for noticed := false; !noticed; {
		run(t, "sh", "-c", command)
		select {
		case reason := <-doubts:
			noticed = true
			d.Resync(reason)
		case <-time.After(3 * time.Second):
			// It may not have been watching yet.
			d.Resync("try again")
		case <-t.Context().Done():
			t.Fatal("nobody noticed")
		}
		mustApply(t, d, snap)
		if diff := cmp.Diff(want, held(t, ipt, v4)); diff != "" {
			t.Fatalf("after the repair (-want +got):\n%s", diff)
		}
	}
}

// watch watches for the rest of the test.
func watch(t *testing.T, ns *lab.Namespace, w proxy.Watcher) <-chan string {
	ctx, stop := context.WithCancel(context.Background())
	doubts, done := make(chan string, 1), make(chan error)
	go func() {
		done <- ns.Do(func() error {
			return w.Watch(ctx, func(reason string) {
				select {
				case doubts <- reason:
				default:
				}
			})
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	return doubts
}

// TestKernelIsCleanedUp leaves nothing in either family and backend.
func TestKernelIsCleanedUp(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		mustApply(t, newDataplane(Config{}, ipt), snapshot(f.node(), exposed("externalLocal"), numbered(1)))
		if err := NewMode(Config{}).Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := held(t, ipt, f); len(got) > 0 {
			t.Errorf("left: %v", got)
		}
	})
}

// TestKernelWithRulesIptablesCannotExpress has rules by nft that make iptables refuse to list tables and chains.
func TestKernelWithRulesIptablesCannotExpress(t *testing.T) {
	for _, f := range proxy.Families {
		t.Run(f.String(), func(t *testing.T) {
			inNamespace(t, func() { serveBesideNative(t, family(f)) })
		})
	}
}

func serveBesideNative(t *testing.T, f family) {
	nft, match := "ip", "ip saddr map { 192.0.2.1 : 5 }"
	if proxy.Family(f) == proxy.IPv6 {
		nft, match = "ip6", "ip6 saddr map { 2001:db8::1 : 5 }"
	}
	places := [][2]string{{filter, "FORWARD"}, {nat, "PREROUTING"}}
	made, err := NewMode(Config{Backend: xtables.NFT}).New(proxy.Family(f))
	if err != nil {
		t.Fatal(err)
	}
	d := made.(*dataplane)
	ipt := d.ipt.Interface.(*xtables.Runner)
	for _, at := range places {
		run(t, command(ipt, f), "-t", at[0], "-A", at[1], "-j", "ACCEPT")
		run(t, "nft", "insert", "rule", nft, at[0], at[1], "ct mark set "+match)
	}
	snap := snapshot(f.node(), exposed("externalLocal"), numbered(1))
	_, k := applied(t, snap)
	// Jumps are told apart by nft, for iptables lists none here.
	check := func(when string) {
		t.Helper()
		for _, table := range []string{nat, filter} {
			want, err := k.Chains(t.Context(), table, xtables.DefaultPrefix)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ipt.Chains(t.Context(), table, xtables.DefaultPrefix)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: table %s differs (-want +got):\n%s", when, table, diff)
			}
		}
		for _, j := range jumps(f.node()) {
			rules := run(t, "nft", "list", "chain", nft, j.Table, j.Chain)
			first, _, _ := strings.Cut(rules, "ct mark set")
			if strings.Count(first, " jump "+j.Target+"\n") == 0 {
				t.Errorf("%s: no jump to %s comes first:\n%s", when, j.Target, rules)
			}
		}
		if found := proxytest.Inspected(t, d, snap); len(found) > 0 {
			t.Errorf("%s: %q", when, found)
		}
	}
	mustApply(t, d, snap)
	check("first")
	run(t, "nft", "flush", "chain", nft, nat, "SLUICE-SERVICES")
	run(t, "sh", "-c", command(ipt, f)+" -t filter -D FORWARD 1")
	harms := []string{"altered table nat, chain SLUICE-SERVICES", "missing table filter, rule -A FORWARD"}
	found := proxytest.Inspected(t, d, snap)
	for i, harm := range harms {
		if len(found) != len(harms) || !strings.HasPrefix(found[i], harm) {
			t.Errorf("found %q, want %q", found, harms)
		}
	}
	d.Resync("damage")
	mustApply(t, d, snap)
	check("after the repair")
	mustApply(t, newDataplane(Config{}, ipt), snap)
	check("after a restart")

	if err := NewMode(Config{}).Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rules := run(t, "nft", "list", "ruleset"); strings.Contains(rules, xtables.DefaultPrefix) {
		t.Errorf("left:\n%s", rules)
	}
	for _, at := range places {
		rules := run(t, "nft", "list", "chain", nft, at[0], at[1])
		if !strings.Contains(rules, "ct mark set") || !strings.Contains(rules, "accept\n\t}") {
			t.Errorf("rules of others are gone:\n%s", rules)
		}
	}
}

func TestKernelSupportsTheMode(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		mode := NewMode(Config{Backend: ipt.Backend()})
		if err := mode.Supported(t.Context(), proxy.Family(f)); err != nil {
			t.Error(err)
		}
		if got := held(t, ipt, f); len(got) > 0 {
			t.Errorf("the question left: %v", got)
		}
	})
}

// TestKernelSetsAsideWhatItRefuses has a Service whose rules no kernel accepts.
func TestKernelSetsAsideWhatItRefuses(t *testing.T) {
	inKernels(t, func(t *testing.T, ipt *xtables.Runner, f family) {
		var services []service
		for i := range 9 {
			services = append(services, numbered(i, remotePod))
		}
		good := snapshot(f.node(), services...)
		bad := &proxy.ServicePort{
			Name:      proxy.ServicePortName{Namespace: "ns", Name: "bad", Protocol: proxy.TCP},
			Frontends: []proxy.Frontend{{Addr: f.port("10.96.9.9", 80), Routes: proxy.Every(proxy.Route{Verdict: proxy.Forward})}},
			// The other family's address.
			Cluster: []proxy.Backend{{Addr: family(1-f).port(remotePod, 80)}},
		}
		d := newDataplane(Config{}, ipt)
		report := mustApply(t, d, good.Next(good.Node(), map[proxy.ServicePortName]*proxy.ServicePort{bad.Name: bad}))
		if diff := cmp.Diff([]string{"bad"}, setAside(report)); diff != "" {
			t.Errorf("set aside (-want +got):\n%s", diff)
		}
		_, k := applied(t, good)
		if diff := cmp.Diff(held(t, k, f), held(t, ipt, f)); diff != "" {
			t.Errorf("the kernel differs (-want +got):\n%s", diff)
		}
	})
}
