package status

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/history"
	"github.com/sluice-proxy/sluice/proxy/loop"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// world is a node with Services that a page shows.
type world struct {
	inputs  map[proxy.ServiceName]policy.Input
	views   [len(proxy.Families)]atomic.Pointer[explain.View]
	history *history.History
	want    *proxy.Snapshot
	past    time.Duration // before now; its syncs are of then
}

var (
	teams = []string{"shop", "payments", "search", "media", "platform", "analytics", "kube-system", "edge"}
	kinds = []string{"api", "web", "worker", "cache", "gateway", "events", "reports", "metrics"}
)

// input is Service number i of a world: of each ten, one has a NodePort, one a load balancer, one no endpoint, one session affinity.
func input(i int) policy.Input {
	name := proxy.ServiceName{Namespace: teams[i%len(teams)], Name: fmt.Sprintf("%s-%d", kinds[i/len(teams)%len(kinds)], i)}
	s := &policy.Service{
		Ports:      []policy.Port{{Name: "http", Protocol: proxy.TCP, Port: 80}},
		ClusterIPs: [2]netip.Addr{netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)}), {}},
	}
	switch i % 10 {
	case 3:
		s.Ports[0].NodePort = uint16(30000 + i%2768)
	case 5:
		s.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
		s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	case 7:
		s.Affinity = 3 * time.Hour
	}
	slice := &policy.Slice{Ports: []policy.SlicePort{{Name: "http", Protocol: proxy.TCP, Port: 8080}}}
	for e := range 3 * min(1, (i+1)%10) {
		node := []string{"node-1", "node-2", "node-3"}[e]
		slice.Endpoints = append(slice.Endpoints, policy.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, 200 + byte(e), byte(i >> 8), byte(i)}), NodeName: node, Ready: e != 2, Serving: e != 2,
		})
	}
	return policy.Input{Name: name, Service: s, Slices: []*policy.Slice{slice}}
}

// newWorld has n Services, beside others.
func newWorld(n int, others ...policy.Input) *world {
	w := &world{inputs: map[proxy.ServiceName]policy.Input{}}
	w.history = history.New(w.now)
	for i := range n {
		in := input(i)
		w.inputs[in.Name] = in
	}
	for _, in := range others {
		w.inputs[in.Name] = in
	}
	return w
}

func (w *world) now() time.Time { return time.Now().Add(-w.past) }

func (w *world) input(name proxy.ServiceName) policy.Input { return w.inputs[name] }

func (w *world) view(f proxy.Family) *explain.View { return w.views[f].Load() }

// snapshot is what is to be served.
func (w *world) snapshot() *proxy.Snapshot {
	var list []policy.Input
	for _, in := range w.inputs {
		list = append(list, in)
	}
	return desired.Build(&proxy.Node{
		Family: proxy.IPv4, Name: "node-1", IP: netip.MustParseAddr("172.18.0.3"), NodePorts: proxy.NodePortAddrs{All: true},
		PodSource: proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: netip.MustParsePrefix("10.200.0.0/14")},
	}, list)
}

// apply tells of a sync as the loop does.
func (w *world) apply(report proxy.Report, took time.Duration) {
	if w.want == nil {
		w.want = w.snapshot()
	}
	w.history.Applied(context.Background(), loop.Applied{
		Family: proxy.IPv4, New: w.want, Report: report, Took: took, Triggers: []time.Time{w.now().Add(-3 * took)},
	})
	w.views[proxy.IPv4].Store(&explain.View{Snapshot: w.want, SetAside: report.SetAside, Input: w.input})
}

// report is one of a difference.
func report(writes int, aside ...proxy.SetAside) proxy.Report {
	return proxy.Report{
		SetAside: aside, Bytes: 90 * writes, Transactions: 1, Tables: []proxy.TableCount{{Table: "sluice", Objects: 41_210, Writes: writes}},
	}
}

// refused sets aside Service number i.
func refused(i int) proxy.SetAside {
	name := proxy.ServicePortName{Namespace: input(i).Name.Namespace, Name: input(i).Name.Name, Port: "http", Protocol: proxy.TCP}
	return proxy.SetAside{Name: name, Err: errors.New("netlink: add element to map cluster-ips: cannot allocate memory")}
}

func (w *world) config() Config {
	return Config{Node: "node-1", Mode: "nftables", Version: "v0.1.0", View: w.view, History: w.history}
}

// hostile is a Service whose words would do harm in a page that took them for HTML.
func hostile() policy.Input {
	in := input(1)
	in.Name = proxy.ServiceName{Namespace: "attack", Name: `<img src=x onerror="document.title='broken in'">`}
	in.Service.ClusterIPs[0] = netip.MustParseAddr("10.111.0.1")
	return in
}

func BenchmarkSearch(b *testing.B) {
	w := newWorld(10_000)
	w.apply(report(10), time.Millisecond)
	p := &page{Config: w.config()}
	for _, q := range []string{"", "payments gateway", "10.201.3"} {
		b.Run(q, func(b *testing.B) {
			for b.Loop() {
				if _, err := p.services(get("services?q=" + q)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
