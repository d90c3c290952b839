package ipvs

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// retire makes a step. Removed counts how often everything was removed.
func (n *node) retire(flows conntrack.Table, over bool) (left bool, removed int) {
	n.t.Helper()
	table := nft.NewRunner(n.family, schema)
	r := retirement{family: n.family, table: table, servers: n.servers, flows: flows, cleanup: func() error { removed++; return table.Remove(n.t.Context()) }}
	left, err := r.step(n.t.Context(), over)
	if err != nil {
		n.t.Fatal(err)
	}
	return left, removed
}

// connect gives a backend of a virtual server connections.
func (n *node) connect(id kernel.ID, backend netip.AddrPort, active, inactive uint32) {
	n.t.Helper()
	load, there := n.servers.Backing[id][backend]
	if !there {
		n.t.Fatalf("%v has no backend %v", id, backend)
	}
	load.Active, load.Inactive = active, inactive
	n.servers.Backing[id][backend] = load
}

func (n *node) clusterIP(ip string, p proxy.Protocol) kernel.ID {
	return kernel.ID{Addr: netip.AddrPortFrom(n.addr(ip), 80), Protocol: p}
}

// TestKernelRetirement ends the mode beside another one, with a start in between that takes everything back.
func TestKernelRetirement(t *testing.T) {
	inKernels(t, func(n *node) {
		web := service{name: "web", ip: "10.96.0.10", external: "203.0.113.1", local: true, nodePort: 30080, backends: []int{1, 2, 3}}
		idle := service{name: "idle", ip: "10.96.0.11", backends: []int{4}}
		want := n.snapshot(web, idle)
		n.apply(n.dataplane(), want)
		before := n.holdings()

		foreign := kernel.Server{ID: n.clusterIP("198.51.100.1", proxy.TCP), Scheduler: "rr"}
		n.servers.Servers[foreign.ID] = foreign
		busy := n.clusterIP("10.96.0.10", proxy.TCP)
		n.connect(busy, n.backend(1).Addr, 1, 0)

		if err := (mode{}).Yield(n.t.Context()); err != nil {
			n.t.Fatal(err)
		}
		if rules := n.nft("list", "chain", nftFamily(n.family), Table, natPrerouting); strings.Contains(rules, "dnat") {
			n.t.Errorf("others may not translate: %s", rules)
		}
		for step, wantServers := range []int{len(before.Servers) + 1, 2, 2} {
			if left, removed := n.retire(nil, false); !left || removed != 0 {
				n.t.Errorf("step %d: left %t, removed %d times", step, left, removed)
			}
			if got := len(n.servers.Servers); got != wantServers {
				n.t.Errorf("step %d: %d virtual servers, want %d", step, got, wantServers)
			}
		}
		for addr, load := range n.servers.Backing[busy] {
			if load.Weight != 0 {
				n.t.Errorf("%v gets new connections", addr)
			}
		}
		state, err := nft.NewRunner(n.family, schema).Read(n.t.Context())
		if err != nil {
			n.t.Fatal(err)
		}
		if listed := state.Elements[frontends.name()]; len(listed) != 1 || listed[0].Key != frontendKey(busy) {
			n.t.Errorf("packets are led to %v", listed)
		}

		n.connect(busy, n.backend(1).Addr, 0, 0)
		delete(n.servers.Servers, foreign.ID)
		n.apply(n.dataplane(), want)
		after := n.holdings()
		if diff := cmp.Diff(withoutMarks(before), withoutMarks(after), ordered...); diff != "" {
			n.t.Errorf("a later start in this mode (-before +after):\n%s", diff)
		}

		n.retire(nil, false)
		if left, removed := n.retire(nil, false); left || removed != 1 {
			n.t.Errorf("without connections: left %t, removed %d times", left, removed)
		}
		if left, removed := n.retire(nil, false); left || removed != 1 {
			n.t.Errorf("after the end: left %t, removed %d times", left, removed)
		}
	})
}

// withoutMarks has one number for all marks.
func withoutMarks(h holdings) holdings {
	servers, backing := map[kernel.ID]kernel.Server{}, map[kernel.ID]map[netip.AddrPort]kernel.Load{}
	for id, s := range h.Servers {
		list := h.Backing[id]
		if id.Mark != 0 && id != sentinelID(Config{}.withDefaults()) {
			id.Mark = 1
			s.ID = id
		}
		servers[id], backing[id] = s, list
	}
	h.Servers, h.Backing, h.Table = servers, backing, map[string][]string{}
	return h
}

// TestKernelRetirementHasAnEnd hands UDP flows over when the time is up, and no others.
func TestKernelRetirementHasAnEnd(t *testing.T) {
	inKernels(t, func(n *node) {
		n.apply(n.dataplane(), n.snapshot(service{name: "dns", ip: "10.96.0.10", protocol: proxy.UDP, backends: []int{1}}))
		id, backend := n.clusterIP("10.96.0.10", proxy.UDP), n.backend(1).Addr
		n.connect(id, backend, 0, 2)
		client := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(n.addr("192.168.0.9"), port) }
		flow := func(port uint16, to, from netip.AddrPort, dnat bool) conntrack.Flow {
			return conntrack.Flow{
				Original: conntrack.Tuple{Src: client(port), Dst: to}, Reply: conntrack.Tuple{Src: from, Dst: client(port)}, DNAT: dnat,
			}
		}
		flows := &conntrack.Fake{}
		other := netip.AddrPortFrom(n.addr("10.1.0.99"), 8080)
		all := flows.Add(flow(1, id.Addr, backend, false), flow(2, id.Addr, backend, true), flow(3, backend, backend, false), flow(4, id.Addr, other, false))
		n.retire(flows, true)
		if left, removed := n.retire(flows, false); !left || removed != 0 {
			n.t.Errorf("before the limit: left %t, removed %d times", left, removed)
		}
		if left, removed := n.retire(flows, true); left || removed != 1 {
			n.t.Errorf("at the limit: left %t, removed %d times", left, removed)
		}
		var stay []conntrack.Flow
		for f, err := range flows.Flows(n.t.Context(), n.family) {
			if err != nil {
				n.t.Fatal(err)
			}
			stay = append(stay, f)
		}
		if len(stay) != len(all)-1 {
			n.t.Errorf("flows %v stay, want all but %v", stay, all[0])
		}
		for _, f := range stay {
			if f == all[0] {
				n.t.Errorf("flow %v through IPVS stays", f)
			}
		}
	})
}

func nftFamily(f proxy.Family) string { return string(nft.Family(f)) }
