package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	client = "192.0.2.1:40000"
	dns    = "10.96.0.10:53"
	podA   = "10.0.0.1:5353"
	podB   = "10.0.0.2:5353"
)

var oneNode = node()

// deletedBy is the result of a pass with the given deletions.
func deletedBy(reasons ...Reason) Result {
	r := Result{Pass: true}
	for _, reason := range reasons {
		r.Deleted[reason]++
	}
	if r.Deleted[Untranslated] > 0 {
		r.Again = answerTime
	}
	return r
}

func TestCleanerEndsWhatTheSnapshotNoLongerAllows(t *testing.T) {
	udp := func(frontends []string, keep ...string) *proxy.ServicePort {
		return port(proxy.UDP, "dns", frontends, keep...)
	}
	on := func(frontends ...string) []string { return frontends }
	explicit := node(func(n *proxy.Node) { n.NodePorts = proxy.NodePortAddrs{Addrs: addrs("172.16.0.1")} })
	local := node(func(n *proxy.Node) { n.NodePorts.Localhost = true })
	const nodePort = "0.0.0.0:30053"

	tests := []struct {
		name     string
		old, cur *proxy.Snapshot
		flow     Flow
		want     Result
	}{
		{
			name: "flow to a serving endpoint lives on after a start",
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: translated(client, dns, podA),
			want: deletedBy(),
		},
		{
			name: "flow to an endpoint that is gone after a start",
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: translated(client, dns, podB),
			want: deletedBy(Gone),
		},
		{
			name: "flow made before there were rules",
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: untranslated(client, dns),
			want: deletedBy(Untranslated),
		},
		{
			name: "flow that somebody began from a frontend",
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: untranslated(dns, client),
			want: deletedBy(),
		},
		{
			name: "the node's own flow from the port of a NodePort",
			cur:  snapshot(oneNode, udp(on(nodePort), podA)),
			flow: untranslated("192.168.0.1:30053", "198.51.100.1:53"),
			want: deletedBy(),
		},
		{
			name: "answer of a backend that outlived its flow: no client's packet is its reply",
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: untranslated(podA, client),
			want: deletedBy(),
		},
		{
			name: "flow to an address of the Service range that nobody has after a start",
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: translated(client, "10.96.0.99:53", podA),
			want: deletedBy(Unassigned),
		},
		{
			name: "flow to another port of a known address after a start",
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: translated(client, "10.96.0.10:54", podA),
			want: deletedBy(Unassigned),
		},
		{
			name: "flow to a foreign address after a start",
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: untranslated(client, "198.51.100.1:53"),
			want: deletedBy(),
		},
		{
			name: "nothing changed",
			old:  snapshot(oneNode),
			cur:  snapshot(oneNode),
			flow: translated(client, dns, podA),
		},
		{
			name: "only a TCP port changed",
			old:  snapshot(oneNode),
			cur:  snapshot(oneNode, port(proxy.TCP, "web", on(dns))),
			flow: translated(client, dns, podB),
		},
		{
			name: "a TCP port with the same address owns no UDP flow",
			old:  snapshot(oneNode, port(proxy.TCP, "dns-tcp", on("10.96.0.20:53")), udp(on(dns), podA)),
			cur:  snapshot(oneNode, port(proxy.TCP, "dns-tcp", on("10.96.0.20:53")), udp(on(dns), podB)),
			flow: translated(client, "10.96.0.20:53", podA),
			want: deletedBy(),
		},
		{
			name: "endpoint removed",
			old:  snapshot(oneNode, udp(on(dns), podA, podB)),
			cur:  snapshot(oneNode, udp(on(dns), podB)),
			flow: translated(client, dns, podA),
			want: deletedBy(Gone),
		},
		{
			name: "endpoint changed only its port",
			old:  snapshot(oneNode, udp(on(dns), podA)),
			cur:  snapshot(oneNode, udp(on(dns), "10.0.0.1:5354")),
			flow: translated(client, dns, podA),
			want: deletedBy(Gone),
		},
		{
			name: "last endpoint removed",
			old:  snapshot(oneNode, udp(on(dns), podA)),
			cur:  snapshot(oneNode, udp(on(dns))),
			flow: translated(client, dns, podA),
			want: deletedBy(Gone),
		},
		{
			name: "first endpoint came",
			old:  snapshot(oneNode, udp(on(dns))),
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: untranslated(client, dns),
			want: deletedBy(Untranslated),
		},
		{
			name: "Service created after its client began",
			old:  snapshot(oneNode),
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: untranslated(client, dns),
			want: deletedBy(Untranslated),
		},
		{
			name: "Service deleted",
			old:  snapshot(oneNode, udp(on(dns), podA)),
			cur:  snapshot(oneNode),
			flow: translated(client, dns, podA),
			want: deletedBy(Released),
		},
		{
			name: "untranslated flow of a deleted Service",
			old:  snapshot(oneNode, udp(on(dns), podA)),
			cur:  snapshot(oneNode),
			flow: untranslated(client, dns),
			want: deletedBy(Released),
		},
		{
			name: "external address removed, Service remains",
			old:  snapshot(oneNode, udp(on(dns, "203.0.113.1:53"), podA)),
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: translated(client, "203.0.113.1:53", podA),
			want: deletedBy(Released),
		},
		{
			name: "after the start an unassigned address is nobody's business",
			old:  snapshot(oneNode, udp(on(dns), podA)),
			cur:  snapshot(oneNode, udp(on(dns), podB)),
			flow: untranslated(client, "10.96.0.99:53"),
			want: deletedBy(),
		},
		{
			name: "frontend moved to a Service that serves the same endpoint",
			old:  snapshot(oneNode, udp(on(dns), podA)),
			cur:  snapshot(oneNode, port(proxy.UDP, "new-dns", on(dns), podA)),
			flow: translated(client, dns, podA),
			want: deletedBy(),
		},
		{
			name: "frontend moved to a Service with other endpoints",
			old:  snapshot(oneNode, udp(on(dns), podA)),
			cur:  snapshot(oneNode, port(proxy.UDP, "new-dns", on(dns), podB)),
			flow: translated(client, dns, podA),
			want: deletedBy(Gone),
		},
		{
			name: "Services share an endpoint address, the other's flow stays",
			old:  snapshot(oneNode, udp(on(dns), podA), port(proxy.UDP, "log", on("10.96.0.11:514"), "10.0.0.1:514")),
			cur:  snapshot(oneNode, udp(on(dns), podB), port(proxy.UDP, "log", on("10.96.0.11:514"), "10.0.0.1:514")),
			flow: translated(client, "10.96.0.11:514", "10.0.0.1:514"),
			want: deletedBy(),
		},
		{
			name: "flow straight to a pod",
			old:  snapshot(oneNode, udp(on(dns), podA)),
			cur:  snapshot(oneNode, udp(on(dns), podB)),
			flow: untranslated(client, podA),
			want: deletedBy(),
		},
		{
			name: "NodePort on an address of the node",
			old:  snapshot(oneNode, udp(on(dns, nodePort), podA)),
			cur:  snapshot(oneNode, udp(on(dns, nodePort), podB)),
			flow: translated(client, "192.168.0.1:30053", podA),
			want: deletedBy(Gone),
		},
		{
			name: "the same port number elsewhere",
			old:  snapshot(oneNode, udp(on(dns, nodePort), podA)),
			cur:  snapshot(oneNode, udp(on(dns, nodePort), podB)),
			flow: untranslated(client, "198.51.100.1:30053"),
			want: deletedBy(),
		},
		{
			name: "NodePort on an address that serves none",
			old:  snapshot(explicit, udp(on(dns, nodePort), podA)),
			cur:  snapshot(explicit, udp(on(dns, nodePort), podB)),
			flow: untranslated(client, "192.168.0.1:30053"),
			want: deletedBy(),
		},
		{
			name: "NodePort on loopback",
			old:  snapshot(local, udp(on(dns, nodePort), podA)),
			cur:  snapshot(local, udp(on(dns, nodePort), podB)),
			flow: translated("127.0.0.1:40000", "127.0.0.2:30053", podA),
			want: deletedBy(Gone),
		},
		{
			name: "loopback serves no NodePorts",
			old:  snapshot(oneNode, udp(on(dns, nodePort), podA)),
			cur:  snapshot(oneNode, udp(on(dns, nodePort), podB)),
			flow: untranslated("127.0.0.1:40000", "127.0.0.1:30053"),
			want: deletedBy(),
		},
		{
			name: "NodePort removed",
			old:  snapshot(oneNode, udp(on(dns, nodePort), podA)),
			cur:  snapshot(oneNode, udp(on(dns), podA)),
			flow: translated(client, "172.16.0.1:30053", podA),
			want: deletedBy(Released),
		},
		{
			name: "an address stopped serving NodePorts",
			old:  snapshot(oneNode, udp(on(dns, nodePort), podA)),
			cur:  snapshot(explicit, udp(on(dns, nodePort), podA)),
			flow: translated(client, "192.168.0.1:30053", podA),
			want: deletedBy(Released),
		},
		{
			name: "an address began to serve NodePorts",
			old:  snapshot(explicit, udp(on(dns, nodePort), podA)),
			cur:  snapshot(oneNode, udp(on(dns, nodePort), podA)),
			flow: untranslated(client, "192.168.0.1:30053"),
			want: deletedBy(Untranslated),
		},
		{
			name: "an external address that is the node's comes before its NodePort",
			old:  snapshot(oneNode, udp(on(nodePort), podA), port(proxy.UDP, "ext", on("172.16.0.1:30053"), podB)),
			cur:  snapshot(oneNode, udp(on(nodePort)), port(proxy.UDP, "ext", on("172.16.0.1:30053"), podB)),
			flow: translated(client, "172.16.0.1:30053", podB),
			want: deletedBy(),
		},
		{
			name: "an external address gave way to a NodePort with the endpoint",
			old:  snapshot(oneNode, udp(on(nodePort), podA), port(proxy.UDP, "ext", on("172.16.0.1:30053"), podA)),
			cur:  snapshot(oneNode, udp(on(nodePort), podA)),
			flow: translated(client, "172.16.0.1:30053", podA),
			want: deletedBy(),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var table Fake
			c := NewCleaner(&table)
			if tt.old != nil { // the start is over
				if _, err := c.Applied(t.Context(), nil, tt.old); err != nil {
					t.Fatal(err)
				}
			}
			table.Add(tt.flow)
			got, err := c.Applied(t.Context(), tt.old, tt.cur)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if left := len(table.All()); left != 1-tt.want.Total() {
				t.Errorf("%d flows left", left)
			}
		})
	}
}

func TestCleanerEndsAgainWhatALateAnswerBringsBack(t *testing.T) {
	var table Fake
	table.Add(untranslated(client, dns))
	c := NewCleaner(&table)
	cur := snapshot(oneNode, port(proxy.UDP, "dns", []string{dns}, podA))
	if r, err := c.Applied(t.Context(), nil, cur); r.Again == 0 || err != nil {
		t.Fatalf("first pass: %+v, %v; want it to ask for another", r, err)
	}
	table.Add(untranslated(dns, client))
	// A change in between may come too early to see the answer.
	newer := cur.Next(oneNode, nil)
	if r, err := c.Applied(t.Context(), cur, newer); r.Pass || err != nil {
		t.Fatalf("no change: %+v, %v; want no pass", r, err)
	}
	if r, err := c.Again(t.Context(), newer); r.Deleted[Untranslated] != 1 || r.Again != 0 || err != nil {
		t.Errorf("second pass: %+v, %v; want the answer's flow deleted, and no third pass", r, err)
	}
	if left := table.All(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Zones belong to whoever made them, and their addresses mean what that one wants.
func TestCleanerLeavesZonesAlone(t *testing.T) {
	for name, mark := range map[string]func(*Flow){
		"both directions": func(f *Flow) { f.Zone = 7 },
		"original":        func(f *Flow) { f.OriginalZone = 7 },
		"reply":           func(f *Flow) { f.ReplyZone = 7 },
	} {
		t.Run(name, func(t *testing.T) {
			flows := []Flow{
				translated(client, dns, podB),
				untranslated("192.0.2.2:40000", dns),
				untranslated(client, "10.96.0.99:53"),
				translated(client, "203.0.113.1:53", podA),
			}
			for i := range flows {
				mark(&flows[i])
				// As it came from the kernel.
				got, ok, err := decodeFlow(body(proxy.IPv4, flows[i]), proxy.IPv4)
				if got != flows[i] || !ok || err != nil {
					t.Fatalf("decoded %v, %v, %v; want %v", got, ok, err, flows[i])
				}
			}
			var table Fake
			table.Add(flows...)
			c := NewCleaner(&table)
			first := snapshot(oneNode, port(proxy.UDP, "dns", []string{dns, "203.0.113.1:53"}, podA))
			second := snapshot(oneNode, port(proxy.UDP, "dns", []string{dns}, podA))
			for _, step := range [][2]*proxy.Snapshot{{nil, first}, {first, second}} {
				if r, err := c.Applied(t.Context(), step[0], step[1]); !r.Pass || r.Total() > 0 || err != nil {
					t.Errorf("%+v, %v; want a pass that deletes nothing", r, err)
				}
			}
		})
	}
}

func TestCleanerTellsLateAnswersFromOthers(t *testing.T) {
	const nodePort = "192.168.0.1:30053"
	own := untranslated(nodePort, "198.51.100.1:53")
	answer := untranslated(nodePort, client)
	for _, tt := range []struct {
		name  string
		after time.Duration
		left  int
	}{{"at once", 0, 1}, {"after a retry", answerMemory, 1}, {"much later", answerMemory + 1, 2}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var table Fake
				table.Add(own, untranslated(client, nodePort))
				c := NewCleaner(&table)
				cur := snapshot(oneNode, port(proxy.UDP, "dns", []string{"0.0.0.0:30053"}, podA))
				if r, err := c.Applied(t.Context(), nil, cur); r.Total() != 1 || err != nil {
					t.Fatalf("first pass: %+v, %v; want the client's flow deleted", r, err)
				}
				table.Add(answer)
				time.Sleep(tt.after)
				if _, err := c.Again(t.Context(), cur); err != nil {
					t.Fatal(err)
				}
				left := table.All()
				if len(left) != tt.left || left[0].Original != own.Original {
					t.Errorf("left: %v; want %d, the node's own among them", left, tt.left)
				}
			})
		})
	}
}

func TestCleanerRemembersOnlySoManyFlows(t *testing.T) {
	var a answers
	flows := make([]Flow, maxAnswers+1)
	for i := range flows {
		flows[i] = untranslated(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), uint16(1+i>>16)).String(), dns)
	}
	a.expect(flows, time.Now())
	if len(a) != maxAnswers {
		t.Errorf("%d flows are remembered, want %d", len(a), maxAnswers)
	}
}

func TestCleanerEndsFlowsThatBeganWhileRulesWereMissing(t *testing.T) {
	snap := snapshot(oneNode, port(proxy.UDP, "dns", []string{dns}, podA))
	var table Fake
	c := NewCleaner(&table)
	if _, err := c.Applied(t.Context(), nil, snap); err != nil {
		t.Fatal(err)
	}
	table.Add(untranslated(client, dns), translated("192.0.2.2:40000", dns, podA))
	for _, want := range []Result{deletedBy(Untranslated), {}} { // the distrust ends with the pass
		if want.Pass {
			c.Distrust(proxy.IPv4)
		}
		got, err := c.Applied(t.Context(), snap, snap)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
	}
}

func TestCleanerListsOnlyForChangesThatMatter(t *testing.T) {
	base := port(proxy.UDP, "dns", []string{dns}, podA)
	tests := []struct {
		name   string
		change func(*proxy.ServicePort)
		want   bool
	}{
		{"nothing", func(*proxy.ServicePort) {}, false},
		{"pool", func(s *proxy.ServicePort) { s.Cluster = []proxy.Backend{{Addr: s.Keep[0]}} }, false},
		{"affinity", func(s *proxy.ServicePort) { s.Affinity = 1 }, false},
		{"health check", func(s *proxy.ServicePort) { s.HealthCheckNodePort = 1 }, false},
		{"keep", func(s *proxy.ServicePort) { s.Keep = addrPortsOf(podB) }, true},
		{"frontend", func(s *proxy.ServicePort) { s.Frontends = nil }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var table Fake
			c := NewCleaner(&table)
			old := snapshot(oneNode, base)
			if r, err := c.Applied(t.Context(), nil, old); !r.Pass || err != nil {
				t.Fatalf("start: %+v, %v", r, err)
			}
			changed := *base
			tt.change(&changed)
			cur := old.Next(oneNode, map[proxy.ServicePortName]*proxy.ServicePort{base.Name: &changed})
			r, err := c.Applied(t.Context(), old, cur)
			if err != nil || r.Pass != tt.want || table.Listings()-1 != count(tt.want) {
				t.Errorf("result %+v, %v after %d listings; want pass %v", r, err, table.Listings(), tt.want)
			}
		})
	}
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

func TestCleanerLooksAtUnassignedAddressesWhenTheRangesBecomeKnown(t *testing.T) {
	unknown := node(func(n *proxy.Node) { n.ServiceCIDRs = nil })
	var table Fake
	table.Add(untranslated(client, "10.96.0.99:53"))
	c := NewCleaner(&table)
	first := snapshot(unknown, port(proxy.UDP, "dns", []string{dns}, podA))
	if r, err := c.Applied(t.Context(), nil, first); r.Total() != 0 || err != nil {
		t.Fatalf("without ranges: %+v, %v", r, err)
	}
	second := first.Next(oneNode, nil)
	if r, err := c.Applied(t.Context(), first, second); r.Deleted[Unassigned] != 1 || err != nil {
		t.Errorf("with ranges: %+v, %v; want one unassigned flow deleted", r, err)
	}
	if r, err := c.Applied(t.Context(), second, second.Next(oneNode, nil)); r.Pass || err != nil {
		t.Errorf("afterwards: %+v, %v; want no pass", r, err)
	}
}

func TestCleanerDoesNotListWhereNothingIsServed(t *testing.T) {
	n := node(func(n *proxy.Node) { n.ServiceCIDRs = nil })
	var table Fake
	r, err := NewCleaner(&table).Applied(t.Context(), nil, snapshot(n, port(proxy.TCP, "web", []string{dns})))
	if r.Pass || err != nil || table.Listings() != 0 {
		t.Errorf("%+v, %v after %d listings", r, err, table.Listings())
	}
}

func TestCleanerRepeatsAnInterruptedListing(t *testing.T) {
	interruptions := 0
	table := &Fake{Fail: func(op string) error {
		if op == "list" && interruptions > 0 {
			interruptions--
			return ErrInterrupted
		}
		return nil
	}}
	table.Add(translated(client, dns, podA), translated("192.0.2.1:40001", dns, podA))
	c := NewCleaner(table)
	cur := snapshot(oneNode, port(proxy.UDP, "dns", []string{dns}, podB))

	interruptions = maxListings - 1
	r, err := c.Applied(t.Context(), nil, cur)
	if err != nil || r.Interrupted || r.Deleted[Gone] != 2 || table.Listings() != maxListings {
		t.Errorf("%+v, %v after %d listings; want 2 deleted after %d", r, err, table.Listings(), maxListings)
	}
}

func TestCleanerUsesWhatAnInterruptedListingFound(t *testing.T) {
	interruptions := maxListings
	table := &Fake{Fail: func(op string) error {
		if op == "list" && interruptions > 0 {
			interruptions--
			return ErrInterrupted
		}
		return nil
	}}
	table.Add(translated(client, dns, podA), translated("192.0.2.1:40001", dns, podA))
	c := NewCleaner(table)
	old := snapshot(oneNode, port(proxy.UDP, "dns", []string{dns}, podA))
	cur := snapshot(oneNode)
	r, err := c.Applied(t.Context(), old, cur)
	if err != nil || !r.Interrupted || r.Deleted[Released] != 1 || table.Listings() != maxListings {
		t.Errorf("%+v, %v after %d listings; want 1 of 2 deleted after %d", r, err, table.Listings(), maxListings)
	}
	// The rest is not forgotten, though the frontend stands in neither snapshot.
	r, err = c.Applied(t.Context(), cur, cur)
	if err != nil || r.Deleted[Released] != 1 || len(table.All()) != 0 {
		t.Errorf("%+v, %v; want the other one deleted", r, err)
	}
}

func TestCleanerMakesUpForAFailedPass(t *testing.T) {
	broken := errors.New("broken")
	for _, op := range []string{"list", "delete"} {
		t.Run(op, func(t *testing.T) {
			fail := true
			table := &Fake{Fail: func(o string) error {
				if fail && o == op {
					return broken
				}
				return nil
			}}
			c := NewCleaner(table)
			withPort := snapshot(oneNode, port(proxy.UDP, "dns", []string{"0.0.0.0:30053"}, podA))
			fail = false
			if _, err := c.Applied(t.Context(), nil, withPort); err != nil {
				t.Fatal(err)
			}
			fail = true
			table.Add(translated(client, "192.168.0.1:30053", podA))
			without := snapshot(oneNode)
			if _, err := c.Applied(t.Context(), withPort, without); !errors.Is(err, broken) || !strings.Contains(err.Error(), "IPv4 UDP flows") {
				t.Fatalf("error %v, want %v with what was tried", err, broken)
			}
			fail = false
			// By now the node has lost the address, too.
			moved := without.Next(node(func(n *proxy.Node) { n.Addrs = addrs("172.16.0.1") }), nil)
			if r, err := c.Applied(t.Context(), without, moved); r.Deleted[Released] != 1 || err != nil {
				t.Errorf("%+v, %v; want the flow deleted", r, err)
			}
			if r, err := c.Applied(t.Context(), moved, moved); r.Pass || err != nil {
				t.Errorf("%+v, %v; want no pass any more", r, err)
			}
		})
	}
}

func TestCleanerKeepsFamiliesApart(t *testing.T) {
	var table Fake
	c := NewCleaner(&table)
	v6 := &proxy.Node{Family: proxy.IPv6}
	table.Add(translated(client, dns, podA), translated("[2001:db8::1]:1", "[fd00::10]:53", "[fd01::1]:53"))
	if _, err := c.Applied(t.Context(), nil, snapshot(v6, port(proxy.UDP, "dns", []string{"[fd00::10]:53"}))); err != nil {
		t.Fatal(err)
	}
	left := table.All()
	if len(left) != 1 || !left[0].Original.Dst.Addr().Is4() {
		t.Errorf("left %v, want the IPv4 flow only", left)
	}
}

func TestCleanerStopsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var table Fake
	_, err := NewCleaner(&table).Applied(ctx, nil, snapshot(oneNode, port(proxy.UDP, "dns", []string{dns})))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestReasonsHaveDistinctNames(t *testing.T) {
	var names []string
	for r := range NumReasons {
		names = append(names, r.String())
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != int(NumReasons) {
		t.Errorf("names %v", names)
	}
}

func TestNodePortOfEachFamily(t *testing.T) {
	for in, want := range map[string]string{"192.0.2.1:53": "0.0.0.0:53", "[2001:db8::1]:53": "[::]:53"} {
		if got := nodePort(netip.MustParseAddrPort(in)); got.String() != want {
			t.Errorf("node port of %s is %s, want %s", in, got, want)
		}
	}
}
