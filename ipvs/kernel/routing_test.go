package kernel_test

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// inNamespaces runs a test in both families, each in a network namespace of its own.
func inNamespaces(t *testing.T, test func(t *testing.T, f proxy.Family, ip func(line string) string)) {
	for _, f := range proxy.Families {
		t.Run(f.String(), func(t *testing.T) {
			ns, err := lab.NewNamespace()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ns.Close() })
			option := map[proxy.Family]string{proxy.IPv4: "-4", proxy.IPv6: "-6"}[f]
			ip := func(line string) string {
				t.Helper()
				out, err := exec.Command("ip", append([]string{option}, strings.Fields(line)...)...).CombinedOutput()
				if err != nil {
					t.Fatalf("ip %s %s: %v: %s", option, line, err, out)
				}
				return string(out)
			}
			if err := ns.Do(func() error { test(t, f, ip); return nil }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func routes(f proxy.Family) kernel.Routes {
	return kernel.Routes{
		Mark:   0x2000,
		Source: lab.In(f, netip.MustParseAddr("192.168.0.1")),
		Last:   []netip.Prefix{lab.PrefixIn(f, netip.MustParsePrefix("10.96.0.0/16")), lab.PrefixIn(f, netip.MustParsePrefix("10.97.0.0/16"))},
	}
}

// own gives lo an address that can be used at once.
func own(ip func(string) string, f proxy.Family, a netip.Addr) {
	line := "addr add " + a.String() + " dev lo"
	if f == proxy.IPv6 {
		line += " nodad"
	}
	ip(line)
}

func apply(t *testing.T, r *kernel.Router, want kernel.Routes) int {
	t.Helper()
	n, err := r.Apply(want)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKernelRoutesFollowWhatIsWanted(t *testing.T) {
	inNamespaces(t, func(t *testing.T, f proxy.Family, ip func(string) string) {
		want := routes(f)
		own(ip, f, want.Source)
		ip("rule add priority 8 fwmark 0x2000/0x2000 lookup 77") // somebody else's
		before := ip("rule")
		r := kernel.NewRouter(f)
		if n := apply(t, r, want); n != 6 {
			t.Errorf("%d writes, want three rules and three routes", n)
		}
		if n := apply(t, kernel.NewRouter(f), want); n != 0 {
			t.Errorf("%d writes when all was there", n)
		}
		// systemd-networkd removes all others that it does not know.
		for _, priority := range []string{"7", "8", "32800"} {
			if line := ip("rule list priority " + priority + " protocol kernel"); line == "" {
				t.Errorf("the rule of priority %s is not marked as the kernel's", priority)
			}
		}
		for _, table := range []string{"21338", "21339"} {
			all := ip("route show table " + table)
			if n := strings.Count(all, "\n"); n == 0 || n != strings.Count(all, "proto kernel") {
				t.Errorf("a route is not marked as the kernel's:\n%s", all)
			}
		}
		got := ip("route get " + want.Last[1].Addr().Next().String())
		if !strings.Contains(got, "src "+want.Source.String()) || !strings.Contains(got, "dev lo") {
			t.Errorf("without a route the node takes %s", got)
		}
		want.Last = want.Last[:1]
		if n := apply(t, r, want); n != 1 {
			t.Errorf("%d writes, want that a route goes", n)
		}
		want.Mark = 0x10
		if n := apply(t, r, want); n != 4 {
			t.Errorf("%d writes, want that two rules are replaced", n)
		}
		if err := r.Remove(); err != nil {
			t.Fatal(err)
		}
		if after := ip("rule"); after != before {
			t.Errorf("rules were\n%s\nand are\n%s", before, after)
		}
		if left := ip("route show table all"); strings.Contains(left, "2133") {
			t.Errorf("routes are left:\n%s", left)
		}
	})
}

// TestKernelRoutesToAddressesComeAndGo changes addresses alone, and then everything.
func TestKernelRoutesToAddressesComeAndGo(t *testing.T) {
	inNamespaces(t, func(t *testing.T, f proxy.Family, ip func(string) string) {
		was := routes(f)
		own(ip, f, was.Source)
		addr := func(last byte) netip.Addr { return lab.In(f, netip.AddrFrom4([4]byte{203, 0, 113, last})) }
		was.Addrs = map[netip.Addr]bool{addr(1): true, addr(2): true}
		r := kernel.NewRouter(f)
		if n := apply(t, r, was); n != 8 {
			t.Errorf("%d writes, want three rules and five routes", n)
		}
		next := was
		next.Addrs = map[netip.Addr]bool{addr(2): true, addr(3): true}
		change := func(was, want kernel.Routes, writes int) {
			t.Helper()
			if n, err := r.Change(was, want); err != nil || n != writes {
				t.Errorf("%d writes, %v; want %d", n, err, writes)
			}
			if n := apply(t, kernel.NewRouter(f), want); n != 0 {
				t.Errorf("%d writes after it", n)
			}
		}
		change(was, next, 2)
		if got := ip("route get " + addr(3).String()); !strings.Contains(got, "src "+was.Source.String()) {
			t.Errorf("the node takes %s", got)
		}
		last := next
		last.Addrs, last.Last = nil, next.Last[:1]
		change(next, last, 3)
	})
}

func TestKernelLostRulesAndRoutesAreNoticed(t *testing.T) {
	inNamespaces(t, func(t *testing.T, f proxy.Family, ip func(string) string) {
		want := routes(f)
		own(ip, f, want.Source)
		r := kernel.NewRouter(f)
		apply(t, r, want)
		w, err := r.Watch()
		if err != nil {
			t.Fatal(err)
		}
		checks := make(chan struct{}, 100)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx, func() { checks <- struct{}{} }) }()
		for damage, says := range map[string]string{
			"rule del priority 7":     "the rule of priority 7 is gone",
			"rule del priority 32800": "the rule of priority 32800 is gone",
			"route flush table 21338": "a route of table 21338 is gone",
			"route flush table 21339": "a route of table 21339 is gone",
		} {
			ip(damage)
			select {
			case <-checks:
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: nothing was heard", damage)
			}
			if got, err := w.Missing(want); err != nil || got != says {
				t.Errorf("%s: got %q, %v, want %q", damage, got, err, says)
			}
			if n := apply(t, r, want); n == 0 {
				t.Errorf("%s: nothing was repaired", damage)
			}
			if got, err := w.Missing(want); err != nil || got != "" {
				t.Errorf("%s: after the repair %q, %v", damage, got, err)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
