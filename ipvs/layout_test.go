package ipvs

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// TestKernelDormantTableIsWoken has somebody put the table to sleep.
func TestKernelDormantTableIsWoken(t *testing.T) {
	inKernels(t, func(n *node) {
		d := n.dataplane()
		want := n.snapshot(crowd(20)...)
		n.apply(d, want)
		before := n.holdings()
		n.nft("add", "table", nftFamily(n.family), Table, "{ flags dormant; }")
		d.Resync("test")
		if report := n.apply(d, want); writes(report) != 1 {
			n.t.Errorf("%d writes, want the one that wakes the table", writes(report))
		}
		if listed := n.nft("list", "table", nftFamily(n.family), Table); strings.Contains(listed, "dormant") {
			n.t.Error("the table is dormant")
		}
		if diff := cmp.Diff(before, n.holdings(), ordered...); diff != "" {
			n.t.Errorf("before (-) and after (+):\n%s", diff)
		}
	})
}

// TestKernelTableOfAnotherLayoutIsReplaced takes over from a process with other ideas about the table: what was served is at any
// moment, and of Services that are no more nothing is left.
func TestKernelTableOfAnotherLayoutIsReplaced(t *testing.T) {
	services := crowd(20)
	for name, change := range map[string][]string{
		"another set": {"add set FAMILY sluice-ipvs strange { type ipv4_addr; }"},
		"a set less":  {"flush chain FAMILY sluice-ipvs nat-postrouting", "delete set FAMILY sluice-ipvs hairpin"},
		"another chain that elements lead to": {
			"add chain FAMILY sluice-ipvs strange { type filter hook input priority 5; }", "add chain FAMILY sluice-ipvs there",
			"add element FAMILY sluice-ipvs from-pods { ADDRESS . tcp . 1 : goto there }",
		},
	} {
		t.Run(name, func(t *testing.T) {
			inKernels(t, func(n *node) {
				n.apply(n.dataplane(), n.snapshot(services...))
				foreign := kernel.Server{ID: kernel.ID{Addr: netip.AddrPortFrom(n.addr("198.51.100.1"), 80), Protocol: proxy.TCP}, Scheduler: "rr"}
				n.servers.Servers[foreign.ID] = foreign
				for _, line := range change {
					line = strings.NewReplacer("FAMILY", nftFamily(n.family), "ADDRESS", n.addr("198.51.100.2").String()).Replace(line)
					n.nft(strings.Fields(line)...)
				}
				d := n.dataplane()
				least := len(services)
				d.table = &watchedTable{Interface: d.table, ran: func(state *nft.State) { least = min(least, len(state.Elements[frontends.name()])) }}
				few := n.snapshot(services[:10]...)
				n.apply(d, few)
				if kept := !strings.Contains(name, "lead to"); kept && least == 0 {
					n.t.Error("for a moment packets are led to no virtual server")
				}
				n.settle(d, few)
				if n.servers.Servers[foreign.ID] != foreign {
					n.t.Error("somebody else's virtual server is gone")
				}
				delete(n.servers.Servers, foreign.ID)
				got := n.holdings()
				n.nft("flush", "ruleset")
				n.servers = kernel.NewFake()
				n.apply(n.dataplane(), few)
				if diff := cmp.Diff(anyMarks(n.holdings()), anyMarks(got), ordered...); diff != "" {
					n.t.Errorf("a fresh start (-) differs from what became of the other layout (+):\n%s", diff)
				}
			})
		})
	}
}

// TestKernelMarksTellWhoseServersAre loses the table, and the process that knew: what is known by a mark of ours is recognised beside
// our sentinel, and nothing else is.
func TestKernelMarksTellWhoseServersAre(t *testing.T) {
	inKernels(t, func(n *node) {
		web := service{name: "web", ip: "10.96.0.10", external: "203.0.113.1", local: true, backends: []int{1, 3}}
		n.apply(n.dataplane(), n.snapshot(web))
		theirs := kernel.Server{ID: kernel.ID{Mark: 0x51000007}, Scheduler: "rr"} // without the bit
		n.servers.Servers[theirs.ID] = theirs
		ours := map[kernel.ID]bool{}
		for id := range n.servers.Servers {
			ours[id] = id.Mark != 0 && id != theirs.ID
		}
		recognised := func() map[kernel.ID]bool {
			n.t.Helper()
			state, err := nft.NewRunner(n.family, schema).Find(n.t.Context())
			if err != nil {
				n.t.Fatal(err)
			}
			all, err := n.servers.List(context.Background())
			if err != nil {
				n.t.Fatal(err)
			}
			owns, err := ledgerOf(state).ours(n.t.Context(), n.servers, all)
			if err != nil {
				n.t.Fatal(err)
			}
			found := map[kernel.ID]bool{}
			for id := range n.servers.Servers {
				found[id] = owns(id)
			}
			return found
		}
		for id, own := range recognised() {
			if own != (id != theirs.ID) {
				n.t.Errorf("while there is a table: %v is ours: %t", id, own)
			}
		}
		n.nft("flush", "ruleset")
		if diff := cmp.Diff(ours, recognised(), ordered...); diff != "" {
			n.t.Errorf("without a table (-want +got):\n%s", diff)
		}
		n.settle(n.dataplane(), n.snapshot())
		for id := range n.servers.Servers {
			if ours[id] && id != sentinelID(Config{}.withDefaults()) {
				n.t.Errorf("after a start without Services %v is left", id)
			}
		}
		n.nft("flush", "ruleset")
		sentinel := sentinelID(Config{}.withDefaults())
		n.servers.Backing[sentinel] = map[netip.AddrPort]kernel.Load{n.backend(1).Addr: {}}
		for id, own := range recognised() {
			if own {
				n.t.Errorf("without a sentinel %v is ours", id)
			}
		}
	})
}
