package ipvs

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

func TestKernelTakesEveryRule(t *testing.T) {
	inKernels(t, func(n *node) {
		if err := probeTable(n.t.Context(), Config{}.withDefaults(), n.family); err != nil {
			n.t.Fatal(err)
		}
		if left := n.nft("list", "ruleset"); left != "" {
			n.t.Errorf("left behind: %s", left)
		}
		n.apply(n.dataplane(), n.snapshot(crowd(3)...))
		// What nft lists it must be able to read: people save and restore rules.
		saved := n.nft("list", "ruleset")
		n.nft("flush", "ruleset")
		file := n.t.TempDir() + "/saved"
		writeFile(n.t, file, saved)
		n.nft("-f", file)
	})
}

// crowd is services of all kinds.
func crowd(count int) []service {
	var all []service
	for i := range count {
		s := service{name: fmt.Sprint("s", i), ip: fmt.Sprintf("10.96.%d.%d", 1+i/200, 1+i%200)}
		for b := range i % 7 {
			s.backends = append(s.backends, i*5+b)
		}
		if i%2 == 0 {
			s.external = fmt.Sprintf("203.0.113.%d", 1+i%200)
			s.local = i%4 == 0
		}
		if i%3 == 0 {
			s.nodePort = uint16(30000 + i)
		}
		if i%5 == 0 {
			s.affinity = time.Minute
		}
		if i%6 == 5 {
			s.protocol = proxy.UDP
		}
		all = append(all, s)
	}
	return all
}

func TestKernelRestartWritesNothing(t *testing.T) {
	inKernels(t, func(n *node) {
		want := n.snapshot(crowd(60)...)
		if report := n.apply(n.dataplane(), want); writes(report) == 0 {
			n.t.Fatal("nothing was written")
		}
		before := n.holdings()
		if report := n.apply(n.dataplane(), want); writes(report) != 0 {
			n.t.Errorf("%d writes after a restart: %v", writes(report), report.Tables)
		}
		if diff := cmp.Diff(before, n.holdings(), ordered...); diff != "" {
			n.t.Errorf("what is held has changed:\n%s", diff)
		}
	})
}

var ordered = cmp.Options{
	cmpopts.SortSlices(strings.Compare), cmpopts.EquateComparable(netip.AddrPort{}, kernel.ID{}), cmpopts.EquateEmpty(),
}

// TestKernelChangeOfOneEndpointIsAFewMessages looks at what one endpoint costs among many.
func TestKernelChangeOfOneEndpointIsAFewMessages(t *testing.T) {
	inKernels(t, func(n *node) {
		services := crowd(100)
		web := service{name: "web", ip: "10.96.9.9", nodePort: 31000}
		for i := range 100 {
			web.backends = append(web.backends, 1+3*i) // none is on this node
		}
		d := n.dataplane()
		was := n.snapshot(append(services, web)...)
		n.apply(d, was)
		n.servers.Commands, n.servers.Lists = 0, 0
		web.backends = append(slices.Clone(web.backends[1:]), 1000)
		next := n.port(web)
		report := n.apply(d, was.Next(n.facts, map[proxy.ServicePortName]*proxy.ServicePort{next.Name: next}))
		// One comes and one goes, at the ClusterIP and two addresses of the node.
		if n.servers.Commands != 6 || n.servers.Lists != 0 || report.Bytes != 0 {
			n.t.Errorf("%d commands, %d lists, %d bytes for nft; want 6, 0, 0", n.servers.Commands, n.servers.Lists, report.Bytes)
		}
	})
}

// settled has nothing that drains: what is left of a history.
func (n *node) settle(d *dataplane, want *proxy.Snapshot) {
	for range 3 {
		n.clock = n.clock.Add(time.Hour)
		n.apply(d, want)
	}
}

// TestKernelConvergesThroughFailures has a tenth of all calls fail, with restarts, and ends like a fresh start.
func TestKernelConvergesThroughFailures(t *testing.T) {
	inKernels(t, func(n *node) {
		random := rand.New(rand.NewPCG(1, uint64(n.family)))
		d := n.dataplane()
		services := crowd(12)
		for range 60 {
			i := random.IntN(len(services))
			s := &services[i]
			switch random.IntN(5) {
			case 0:
				s.backends = nil
			case 1:
				s.local = !s.local
			case 2:
				s.nodePort = uint16(random.IntN(2)) * uint16(30000+i)
			default:
				s.backends = append(slices.Clone(s.backends), random.IntN(500))
				slices.Sort(s.backends)
				s.backends = slices.Compact(s.backends)
			}
			if random.IntN(10) == 0 {
				d = n.dataplane()
			}
			n.clock = n.clock.Add(time.Duration(random.IntN(20)) * time.Second)
			n.servers.Fail = func() bool { return random.IntN(30) == 0 }
			skip := random.IntN(len(services)) // is deleted, and comes back
			want := n.snapshot(slices.Delete(slices.Clone(services), skip, skip+1)...)
			if _, err := d.Apply(n.t.Context(), want); err != nil && err != kernel.ErrFake { //nolint:errorlint // it comes as it is
				n.t.Fatal(err)
			}
		}
		n.servers.Fail = nil
		want := n.snapshot(services...)
		n.apply(d, want)
		n.settle(d, want)
		got := n.holdings()

		n.nft("flush", "ruleset")
		n.servers = kernel.NewFake()
		fresh := n.dataplane()
		n.apply(fresh, want)
		if diff := cmp.Diff(anyMarks(n.holdings()), anyMarks(got), ordered...); diff != "" {
			n.t.Errorf("a fresh start (-) differs from a long history (+):\n%s", diff)
		}
	})
}

// anyMarks leaves out which mark is whose.
func anyMarks(h holdings) holdings {
	for _, name := range []string{ownMarks.name(), podServers.name(), outsideServers.name()} {
		for i, e := range h.Table[name] {
			key, _, _ := strings.Cut(e, " : ")
			if name == ownMarks.name() {
				key = "mark"
			}
			h.Table[name][i] = key
		}
	}
	next := kernel.ID{Mark: 1}
	for id, s := range h.Servers {
		if id.Mark == 0 {
			continue
		}
		// Told apart by their backends, which is enough here.
		next.Mark = 1
		for addr := range h.Backing[id] {
			next.Mark += uint32(addr.Addr().As16()[14])<<8 + uint32(addr.Addr().As16()[15])
		}
		backing := h.Backing[id]
		delete(h.Servers, id)
		delete(h.Backing, id)
		s.ID = next
		defer func(id kernel.ID) { h.Servers[id], h.Backing[id] = s, backing }(next)
	}
	return h
}

// TestKernelServerOutlivesItsElement looks at the order of things: what leads to a virtual server comes after it and goes
// before it.
func TestKernelServerOutlivesItsElement(t *testing.T) {
	inKernels(t, func(n *node) {
		table := &spy{Interface: nft.NewRunner(n.family, schema), n: n}
		d := n.dataplane()
		d.table = table
		n.apply(d, n.snapshot(service{name: "web", ip: "10.96.0.10", backends: []int{1}}))
		n.apply(d, n.snapshot())
		if table.looked < 2 {
			n.t.Errorf("looked at %d transactions", table.looked)
		}
	})
}

// spy looks at the kernel after each transaction.
type spy struct {
	nft.Interface
	n      *node
	looked int
}

func (s *spy) Run(ctx context.Context, tx *transaction) error {
	err := s.Interface.Run(ctx, tx)
	state, _ := s.Read(ctx)
	for _, e := range state.Elements[frontends.name()] {
		s.looked++
		key := strings.Split(e.Key, " . ")
		id := kernel.ID{Addr: netip.AddrPortFrom(netip.MustParseAddr(key[0]), 80), Protocol: proxy.TCP}
		if _, there := s.n.servers.Servers[id]; !there {
			s.n.t.Errorf("packets are led to %v, which is not there", id)
		}
	}
	for id := range s.n.servers.Servers {
		if !ledgerOf(state).owns(id) {
			s.n.t.Errorf("nothing says that %v is ours", id)
		}
	}
	return err
}

// TestKernelOwnClientsAreMasqueradedAtAnyMoment looks at each step while a backend on the node comes and goes: as long as it gets
// connections, it may be its own client.
func TestKernelOwnClientsAreMasqueradedAtAnyMoment(t *testing.T) {
	inKernels(t, func(n *node) {
		looked := 0
		look := func(state *nft.State) {
			masqueraded := map[string]bool{}
			for _, e := range state.Elements[hairpin.name()] {
				masqueraded[e.Key] = true
			}
			for id, backing := range n.servers.Backing {
				l := backing[n.backend(3).Addr]
				if l.Weight == 0 {
					continue
				}
				looked++
				if addr := l.Addr.Addr().String(); !masqueraded[addr+" . "+addr] {
					n.t.Errorf("%v has a backend that cannot be its own client", id)
				}
			}
		}
		d := n.dataplane()
		table := d.table
		d.table = &watchedTable{Interface: table, ran: look}
		n.servers.Fail = func() bool {
			if state, err := table.Read(n.t.Context()); err == nil && state != nil {
				look(state)
			}
			return false
		}
		for _, backends := range [][]int{{1, 3}, {1}, {1, 3}, {}, {3}} {
			n.apply(d, n.snapshot(service{name: "web", ip: "10.96.0.10", nodePort: 30080, backends: backends}))
		}
		if looked == 0 {
			n.t.Error("nothing was looked at")
		}
		// One ServicePort's backend becomes that of another in one step.
		n.apply(d, n.snapshot(service{name: "a-web", ip: "10.96.0.10", backends: []int{1}}, service{name: "web", ip: "10.96.0.11", backends: []int{3}}))
		n.apply(d, n.snapshot(service{name: "a-web", ip: "10.96.0.10", backends: []int{3}}, service{name: "web", ip: "10.96.0.11", backends: []int{1}}))
		n.apply(d, n.snapshot(service{name: "a-web", ip: "10.96.0.10", backends: []int{1}}, service{name: "web", ip: "10.96.0.11", backends: []int{3}}))
	})
}

// TestKernelPriorityServicesComeFirst looks at a cold start from transaction to transaction: the priority service is served before
// anything is known of the others, and all that refuses comes last.
func TestKernelPriorityServicesComeFirst(t *testing.T) {
	inKernels(t, func(n *node) {
		api := n.port(service{name: "zz-api", ip: "10.96.0.1", backends: []int{1}})
		api.Priority = true
		ports := map[proxy.ServicePortName]*proxy.ServicePort{api.Name: api}
		for _, s := range crowd(100) {
			p := n.port(s)
			ports[p.Name] = p
		}
		var served []int // frontends, after each transaction
		var refusing []bool
		d := n.dataplane()
		d.table = &watchedTable{Interface: d.table, ran: func(state *nft.State) {
			served = append(served, len(state.Elements[frontends.name()]))
			refusing = append(refusing, len(state.Chains[reject]) > 0)
		}}
		n.apply(d, proxy.NewSnapshot(n.facts, ports))
		first := slices.IndexFunc(served, func(n int) bool { return n > 0 })
		if first < 0 || served[first] != 1 {
			n.t.Errorf("frontends served after each transaction: %v, want one at first", served)
		}
		if i := slices.Index(refusing, true); i != len(refusing)-1 {
			n.t.Errorf("refuses after transaction %d of %d", i+1, len(refusing))
		}
	})
}

// watchedTable shows what is there after each transaction.
type watchedTable struct {
	nft.Interface
	ran func(state *nft.State)
}

func (w *watchedTable) Run(ctx context.Context, tx *transaction) error {
	err := w.Interface.Run(ctx, tx)
	if state, readErr := w.Read(ctx); readErr == nil && state != nil {
		w.ran(state)
	}
	return err
}

// TestKernelExcludedServerIsLeft has somebody else's virtual server where a Service wants its own.
func TestKernelExcludedServerIsLeft(t *testing.T) {
	inKernels(t, func(n *node) {
		id := kernel.ID{Addr: netip.AddrPortFrom(n.addr("10.96.0.10"), 80), Protocol: proxy.TCP}
		theirs := kernel.Server{ID: id, Scheduler: "wlc"}
		n.servers.Servers[id], n.servers.Backing[id] = theirs, map[netip.AddrPort]kernel.Load{}
		d := n.dataplane()
		d.cfg.Exclude = []netip.Prefix{netip.PrefixFrom(id.Addr.Addr(), n.family.Bits())}
		want := n.snapshot(service{name: "web", ip: "10.96.0.10", backends: []int{1}}, service{name: "more", ip: "10.96.0.11", backends: []int{2}})
		report, err := d.Apply(n.t.Context(), want)
		if err != nil || len(report.SetAside) != 1 || report.SetAside[0].Name.Name != "web" {
			n.t.Errorf("got %v, %v; want one Service set aside", report.SetAside, err)
		}
		if n.servers.Servers[id] != theirs || len(n.servers.Backing[id]) != 0 {
			n.t.Errorf("their virtual server is %v now", n.servers.Servers[id])
		}
		other := kernel.ID{Addr: netip.AddrPortFrom(n.addr("10.96.0.11"), 80), Protocol: proxy.TCP}
		if len(n.servers.Backing[other]) != 1 {
			n.t.Error("the other Service is not served")
		}
	})
}

// TestKernelDisturbanceIsNobodysFault has somebody remove all virtual servers, or put some there, at each moment of a repair: no Service
// is set aside for that.
func TestKernelDisturbanceIsNobodysFault(t *testing.T) {
	inKernels(t, func(n *node) {
		services := []service{{name: "web", ip: "10.96.0.10", backends: []int{1, 2}}, {name: "dns", ip: "10.96.0.11", protocol: proxy.UDP, backends: []int{4}}}
		want := n.snapshot(services...)
		n.apply(n.dataplane(), want)
		n.settle(n.dataplane(), want)
		whole := n.holdings()
		for name, disturb := range map[string]func(){
			"cleared": func() { clear(n.servers.Servers); clear(n.servers.Backing) },
			"filled": func() {
				for id, s := range whole.Servers {
					if _, there := n.servers.Servers[id]; !there {
						n.servers.Servers[id], n.servers.Backing[id] = s, maps.Clone(whole.Backing[id])
					}
				}
			},
		} {
			for at := 1; at < 20; at++ {
				clear(n.servers.Servers)
				clear(n.servers.Backing)
				calls := 0
				n.servers.Fail = func() bool {
					if calls++; calls == at {
						disturb()
					}
					return false
				}
				d := n.dataplane()
				n.apply(d, want)
				n.servers.Fail = nil
				d.Resync("test") // what happened after the last look
				n.apply(d, want)
				n.settle(d, want)
				if diff := cmp.Diff(whole, n.holdings(), ordered...); diff != "" {
					n.t.Errorf("%s at call %d: (-want +got)\n%s", name, at, diff)
				}
			}
		}
	})
}

// TestKernelLostTableIsNoLostServer loses the table that says which virtual servers are ours.
func TestKernelLostTableIsNoLostServer(t *testing.T) {
	inKernels(t, func(n *node) {
		d := n.dataplane()
		services := crowd(20)
		n.apply(d, n.snapshot(services...))
		n.nft("flush", "ruleset")
		d.Resync("test")
		n.apply(d, n.snapshot(services[:10]...))
		n.settle(d, n.snapshot(services[:10]...))
		got := n.holdings()
		n.nft("flush", "ruleset")
		n.servers = kernel.NewFake()
		n.apply(n.dataplane(), n.snapshot(services[:10]...))
		if diff := cmp.Diff(anyMarks(n.holdings()), anyMarks(got), ordered...); diff != "" {
			n.t.Errorf("a fresh start (-) differs from what was repaired (+):\n%s", diff)
		}
	})
}

// TestKernelDrainsEndInTime drains with doubts in between.
func TestKernelDrainsEndInTime(t *testing.T) {
	inKernels(t, func(n *node) {
		d := n.dataplane()
		web := service{name: "web", ip: "10.96.0.10", backends: []int{1, 2}}
		n.apply(d, n.snapshot(web))
		id := kernel.ID{Addr: netip.AddrPortFrom(n.addr("10.96.0.10"), 80), Protocol: proxy.TCP}
		gone := n.backend(1).Addr
		l := n.servers.Backing[id][gone]
		l.Active = 1
		n.servers.Backing[id][gone] = l
		web.backends = []int{2}
		for waited := time.Duration(0); waited < DefaultDrainLimit; waited += time.Minute {
			n.apply(d, n.snapshot(web))
			if l, there := n.servers.Backing[id][gone]; !there || l.Weight != 0 {
				n.t.Fatalf("after %v the backend is %v, %v", waited, l, there)
			}
			n.clock = n.clock.Add(time.Minute)
			d.Resync("test")
		}
		n.apply(d, n.snapshot(web))
		n.clock = n.clock.Add(lookAgain)
		n.apply(d, n.snapshot(web))
		if l, there := n.servers.Backing[id][gone]; there {
			n.t.Errorf("after the limit the backend is still there: %v", l)
		}
	})
}
