package conntrack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/proxy"
)

// world is a small universe of Services, so that addresses and endpoints meet often.
type world struct {
	ports map[proxy.ServicePortName]*proxy.ServicePort
	node  *proxy.Node
}

// change replaces one Service, which may take a frontend from another, or the node.
func (w *world) change(t *rapid.T) {
	if rapid.IntRange(0, 9).Draw(t, "what") == 0 {
		w.node = node(func(n *proxy.Node) {
			n.Addrs = addrs(fmt.Sprintf("172.16.0.%d", rapid.IntRange(1, 2).Draw(t, "address")))
		})
		return
	}
	name := proxy.ServicePortName{Namespace: "ns", Name: fmt.Sprint("s", rapid.IntRange(0, 3).Draw(t, "service")), Protocol: proxy.UDP}
	if rapid.Bool().Draw(t, "delete") {
		delete(w.ports, name)
		return
	}
	frontends := rapid.SliceOfNDistinct(rapid.SampledFrom(universe), 0, 3, rapid.ID).Draw(t, "frontends")
	keep := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{podA, podB}), 0, 2, rapid.ID).Draw(t, "keep")
	taken := port(proxy.UDP, name.Name, frontends, keep...)
	for other, p := range w.ports {
		w.ports[other] = without(p, taken)
	}
	w.ports[name] = taken
}

var universe = []string{dns, "10.96.0.11:53", "203.0.113.1:53", "172.16.0.1:30053", "0.0.0.0:30053", "0.0.0.0:30054"}

// without is p less the frontends that taken has; p itself if it has none of them.
func without(p, taken *proxy.ServicePort) *proxy.ServicePort {
	var left []proxy.Frontend
	for _, f := range p.Frontends {
		if _, has := claims(taken)[f.Addr]; !has {
			left = append(left, f)
		}
	}
	if len(left) == len(p.Frontends) {
		return p
	}
	c := *p
	c.Frontends = left
	return &c
}

func claims(p *proxy.ServicePort) map[netip.AddrPort]bool {
	m := map[netip.AddrPort]bool{}
	for _, f := range p.Frontends {
		m[f.Addr] = true
	}
	return m
}

// allowed is the rule in other words: the backends that an address may have, and whether it is
// served at all.
func (w *world) allowed(dst netip.AddrPort) (keep []netip.AddrPort, served bool) {
	for _, p := range w.ports {
		if claims(p)[dst] {
			return p.Keep, true
		}
	}
	for _, a := range w.node.Addrs {
		for _, p := range w.ports {
			if a == dst.Addr() && claims(p)[netip.AddrPortFrom(netip.IPv4Unspecified(), dst.Port())] {
				return p.Keep, true
			}
		}
	}
	return nil, false
}

// Whatever changes and whatever fails: after a pass that succeeded no flow is left that the Services
// do not allow, and none is missing that they have allowed all the time.
func TestCleanerConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		faults := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		failing := true
		table := &Fake{Fail: func(op string) error {
			switch {
			case !failing || faults.IntN(10) > 0:
				return nil
			case op == "list" && faults.IntN(2) == 0:
				return ErrInterrupted
			}
			return errors.New("fault")
		}}
		c := NewCleaner(table)
		w := &world{ports: map[proxy.ServicePortName]*proxy.ServicePort{}, node: node()}
		foreign := table.Add(untranslated(client, "198.51.100.1:30053"), untranslated(client, podA))
		var old *proxy.Snapshot
		ours := map[Flow]bool{} // translated flows that were allowed whenever a pass was made
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			w.change(t)
			cur := snapshot(w.node, mapsValues(w.ports)...)
			_, err := c.Applied(t.Context(), old, cur)
			for f := range ours {
				if keep, _ := w.allowed(f.Original.Dst); !contains(keep, f.Reply.Src) {
					delete(ours, f)
				}
			}
			if err == nil {
				checkKept(t, table, ours)
			}
			w.traffic(t, table, ours)
			old = cur
		}
		failing = false
		if _, err := c.Applied(t.Context(), old, old); err != nil {
			t.Fatal(err)
		}
		// What was served at the last step and is there still was made by its rules.
		checkKept(t, table, ours)
		for _, f := range foreign {
			if !contains(table.All(), f) {
				t.Errorf("foreign flow %v is gone", f)
			}
		}
		w.ports = map[proxy.ServicePortName]*proxy.ServicePort{}
		if _, err := c.Applied(t.Context(), old, snapshot(w.node)); err != nil {
			t.Fatal(err)
		}
		for _, f := range table.All() {
			if !contains(foreign, f) {
				t.Errorf("flow %v is left though nothing is served", f)
			}
		}
	})
}

// traffic makes flows as the present rules would.
func (w *world) traffic(t *rapid.T, table *Fake, ours map[Flow]bool) {
	for i := range rapid.IntRange(0, 4).Draw(t, "flows") {
		dst := rapid.SampledFrom([]string{dns, "10.96.0.11:53", "203.0.113.1:53", "172.16.0.1:30053", "172.16.0.2:30053", "172.16.0.2:30054"}).Draw(t, "destination")
		keep, served := w.allowed(netip.MustParseAddrPort(dst))
		if !served || len(keep) == 0 {
			continue
		}
		backend := keep[rapid.IntRange(0, len(keep)-1).Draw(t, "backend")]
		f := translated(fmt.Sprintf("192.0.2.%d:%d", i+1, rapid.IntRange(1, 3).Draw(t, "client")), dst, backend.String())
		for o := range ours {
			if sameKey(o, f) {
				delete(ours, o)
			}
		}
		ours[table.Add(f)[0]] = true
	}
}

func checkKept(t *rapid.T, table *Fake, ours map[Flow]bool) {
	all := table.All()
	for f := range ours {
		if !contains(all, f) {
			t.Errorf("flow %v was allowed and is gone", f)
		}
	}
}

func contains[T comparable](list []T, x T) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

func mapsValues(m map[proxy.ServicePortName]*proxy.ServicePort) []*proxy.ServicePort {
	var out []*proxy.ServicePort
	for _, p := range m {
		out = append(out, p)
	}
	return out
}
