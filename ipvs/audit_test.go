package ipvs

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
)

// TestKernelAuditNamesEachDamageAndItIsRepaired has others change single virtual servers and backends.
func TestKernelAuditNamesEachDamageAndItIsRepaired(t *testing.T) {
	inKernels(t, func(n *node) {
		d := n.dataplane()
		want := n.snapshot(service{name: "web", ip: "10.96.0.10", backends: []int{1, 2}}, service{name: "more", ip: "10.96.0.11", backends: []int{4}})
		n.apply(d, want)
		a := &auditor{d: d, look: n.servers}
		quiet := func(when string) {
			t := n.t
			t.Helper()
			if reason, err := a.audit(t.Context()); reason != "" || err != nil {
				t.Errorf("%s: %q, %v; want that nothing is found", when, reason, err)
			}
		}
		quiet("before")
		before := n.holdings()
		id := kernel.ID{Addr: netip.AddrPortFrom(n.addr("10.96.0.10"), 80), Protocol: proxy.TCP}
		one := n.backend(1).Addr
		change := func(f func(s *kernel.Server)) {
			s := n.servers.Servers[id]
			f(&s)
			n.servers.Servers[id] = s
		}
		set := func(l kernel.Load) { n.servers.Backing[id][l.Addr] = l }
		for says, damage := range map[string]func(){
			"our virtual servers are gone": func() { clear(n.servers.Servers); clear(n.servers.Backing) },
			" is gone":                     func() { delete(n.servers.Servers, id); delete(n.servers.Backing, id) },
			" was changed":                 func() { change(func(s *kernel.Server) { s.Scheduler = "lc" }) },
			"of ns/web was changed":        func() { change(func(s *kernel.Server) { s.Altered = true }) },
			"has lost backend " + one.String(): func() {
				delete(n.servers.Backing[id], one)
			},
			"with weight 0 instead of 1": func() { set(kernel.Load{Dest: kernel.Dest{Addr: one}}) },
			"with weight 7 instead of 1": func() { set(kernel.Load{Dest: kernel.Dest{Addr: one, Weight: 7}}) },
			"with other settings":        func() { set(kernel.Load{Dest: kernel.Dest{Addr: one, Weight: 1}, Altered: true}) },
			"that is not ours":           func() { set(kernel.Load{Dest: kernel.Dest{Addr: n.backend(9).Addr, Weight: 1}}) },
		} {
			damage()
			if reason, err := a.audit(n.t.Context()); err != nil || !strings.Contains(reason, says) {
				n.t.Errorf("got %q, %v, want %q", reason, err, says)
			}
			d.Resync("test")
			n.apply(d, want)
			quiet(says)
			n.settle(d, want)
			if diff := cmp.Diff(before, n.holdings(), ordered...); diff != "" {
				n.t.Errorf("%s: before (-) and after the repair (+):\n%s", says, diff)
			}
		}
	})
}

// TestKernelAuditCostsTheSameAndLeavesNothingOut counts what is looked at, and lets the last one of many be found.
func TestKernelAuditCostsTheSameAndLeavesNothingOut(t *testing.T) {
	inKernels(t, func(n *node) {
		d := n.dataplane()
		n.apply(d, n.snapshot(crowd(150)...))
		a := &auditor{d: d, look: n.servers}
		objects := len(n.servers.Servers)
		for id := range n.servers.Servers {
			objects += len(n.servers.Backing[id])
		}
		turns := objects/auditObjects + 2
		for range turns {
			n.servers.Lists = 0
			if reason, err := a.audit(n.t.Context()); reason != "" || err != nil {
				n.t.Fatalf("%q, %v", reason, err)
			}
			if n.servers.Lists > auditObjects+1 {
				n.t.Errorf("looked at %d virtual servers at once", n.servers.Lists)
			}
		}
		for id := range n.servers.Servers {
			if id == sentinelID(d.cfg) {
				continue
			}
			s, backing := n.servers.Servers[id], n.servers.Backing[id]
			delete(n.servers.Servers, id)
			found := ""
			for range 2 * turns { // it may have had its turn in this round
				if found == "" {
					found, _ = a.audit(n.t.Context())
				}
			}
			if !strings.Contains(found, "is gone") {
				n.t.Fatalf("in %d turns nobody found that %v is gone", turns, id)
			}
			n.servers.Servers[id], n.servers.Backing[id] = s, backing
		}
	})
}

// TestKernelAuditKeepsOutOfTheWay has no opinion before anything is known, and while something is changed.
func TestKernelAuditKeepsOutOfTheWay(t *testing.T) {
	inKernels(t, func(n *node) {
		d := n.dataplane()
		a := &auditor{d: d, look: n.servers}
		wantQuiet := func(when string) {
			if reason, err := a.audit(n.t.Context()); reason != "" || err != nil {
				n.t.Errorf("%s: %q, %v", when, reason, err)
			}
		}
		wantQuiet("before the first Apply")
		n.apply(d, n.snapshot(crowd(5)...))
		clear(n.servers.Servers)
		d.busy.Lock()
		wantQuiet("during an Apply")
		d.busy.Unlock()
		if reason, _ := a.audit(n.t.Context()); reason == "" {
			n.t.Error("nothing was found in the end")
		}
	})
}
