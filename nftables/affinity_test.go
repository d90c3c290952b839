package nftables

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// oneWay is a Service of UDP whose backends, the pods of the node, never answer: to connection tracking every datagram is the
// first of its connection.
type oneWay struct {
	*lab.Lab
	t       *testing.T
	f       proxy.Family
	d       *dataplane
	cleaner *conntrack.Cleaner
	applied *proxy.Snapshot
	arrived chan string // names of pods
}

func startOneWay(t *testing.T, f proxy.Family) *oneWay {
	t.Helper()
	w := &oneWay{Lab: lab.Start(t, lab.Config{}), t: t, f: f, d: newTestDataplane(inFamily(f)),
		cleaner: conntrack.NewCleaner(&conntrack.Kernel{}), arrived: make(chan string, 1000)}
	for _, pod := range w.Pods {
		var socket net.PacketConn
		if err := pod.Do(func() (err error) {
			socket, err = net.ListenPacket("udp", netip.AddrPortFrom(pod.Addr(f), 8080).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		var reading sync.WaitGroup
		reading.Go(func() {
			for buffer := make([]byte, 16); ; {
				if _, _, err := socket.ReadFrom(buffer); err != nil {
					return
				}
				w.arrived <- pod.Name
			}
		})
		t.Cleanup(func() { _ = socket.Close(); reading.Wait() })
	}
	return w
}

// serve makes pods the backends, and ends the flows that are stale then.
func (w *oneWay) serve(names ...string) {
	w.t.Helper()
	svc := &policy.Service{Ports: []policy.Port{{Protocol: proxy.UDP, Port: 514}}, Affinity: time.Hour}
	svc.ClusterIPs[w.f] = w.clusterIP().Addr()
	slice := &policy.Slice{Family: w.f, Ports: []policy.SlicePort{{Protocol: proxy.UDP, Port: 8080}}}
	for _, pod := range w.Pods {
		if slices.Contains(names, pod.Name) {
			slice.Endpoints = append(slice.Endpoints, policy.Endpoint{Addr: pod.Addr(w.f), NodeName: "here", Ready: true, Serving: true})
		}
	}
	node := inFamily(w.f).node()
	if w.applied != nil {
		node = w.applied.Node()
	}
	ports := map[proxy.ServicePortName]*proxy.ServicePort{}
	for _, sp := range policy.Resolve(policy.Input{Name: proxy.ServiceName{Namespace: "ns", Name: "log"}, Service: svc, Slices: []*policy.Slice{slice}}, node) {
		ports[sp.Name] = sp
	}
	want := proxy.NewSnapshot(node, ports)
	if err := w.Node.Do(func() error {
		mustApply(w.t, w.d, want)
		_, err := w.cleaner.Applied(w.t.Context(), w.applied, want)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	w.applied = want
}

func (w *oneWay) clusterIP() netip.AddrPort {
	return netip.AddrPortFrom(inFamily(w.f).addr("10.96.0.14"), 514)
}

// stream opens a stream from the client.
func (w *oneWay) stream() net.Conn {
	w.t.Helper()
	c, err := w.Client.DialContext(w.t.Context(), "udp", w.clusterIP().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// arrive sends some datagrams and tells where they arrive: all at one pod.
func (w *oneWay) arrive(when string, c net.Conn) string {
	w.t.Helper()
	var at []string
	for range 20 {
		if _, err := c.Write([]byte("line")); err != nil {
			w.t.Fatalf("%s: %v", when, err)
		}
		select {
		case name := <-w.arrived:
			at = append(at, name)
		case <-time.After(patience):
			w.t.Fatalf("%s: a datagram is lost", when)
		}
	}
	if len(slices.Compact(at)) != 1 {
		w.t.Fatalf("%s: datagrams arrived at %v", when, at)
	}
	return at[0]
}

// Nobody answers, so each datagram would tell the table anew which backend its client has.
func TestKernelOneWayStreamLeavesABackendThatIsGone(t *testing.T) {
	for _, f := range proxy.Families {
		t.Run(f.String(), func(t *testing.T) {
			w := startOneWay(t, f)
			all := []string{"pod-a", "pod-b", "pod-c"}
			w.serve(all...)
			long := w.stream()
			first := w.arrive("at first", long)
			if at := w.arrive("another stream", w.stream()); at != first {
				t.Errorf("another stream of the client goes to %s, the first to %s", at, first)
			}
			w.serve(slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == first })...)
			second := w.arrive("its backend is gone", long)
			if second == first {
				t.Fatalf("the stream still goes to %s", first)
			}
			if at := w.arrive("another stream then", w.stream()); at != second {
				t.Errorf("another stream of the client goes to %s, the first to %s", at, second)
			}
			w.serve(all...)
			for range 8 {
				if at := w.arrive("it is back", w.stream()); at != second {
					t.Errorf("the client has moved back to %s from %s", at, second)
				}
			}
		})
	}
}

// Clients are forgotten in the kernel at any moment, be it between the look-ups of a packet or while a transaction is
// committed. A client whose entry is gone gets any backend there is, and never one that there is not.
func TestKernelClientsExpireWhileEndpointsChange(t *testing.T) {
	for _, f := range proxy.Families {
		t.Run(f.String(), func(t *testing.T) {
			g := startGuarded(t, inFamily(f), time.Second)
			random := rand.New(rand.NewPCG(3, uint64(f)))
			d, node := newTestDataplane(inFamily(f)), inFamily(f).node()
			pools := &history{}
			change := func() {
				pods := slices.Clone(g.backends())
				random.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
				var backends []netip.AddrPort
				for _, pod := range pods[:1+random.IntN(len(pods))] {
					backends = append(backends, netip.AddrPortFrom(pod.Addr(proxy.IPv4), 8080))
				}
				pools.begin(backends)
				web := service{name: "web", clusterIP: "10.96.0.10", nodePort: guardedNodePort, affinity: time.Second, backends: backends}
				g.onNode(func() { mustApply(t, d, snapshot(node, web)) })
				pools.end()
			}
			change()
			done := make(chan struct{})
			var clients sync.WaitGroup
			for _, from := range g.Client.Addrs(f) {
				clients.Go(func() {
					// An entry lives a second from the last connection on: these come about when it ends.
					for pause := 950 * time.Millisecond; ; pause += 10 * time.Millisecond {
						select {
						case <-done:
							return
						case <-time.After(pause):
						}
						for name, to := range g.frontends() {
							since := pools.now()
							o := g.Client.Probe(lab.Probe{To: to, Protocol: proxy.TCP, From: netip.AddrPortFrom(from, 0), Timeout: patience})
							if allowed := pools.since(since); o.Result != lab.Answered || !slices.Contains(allowed, backendOf(o)) {
								t.Errorf("%v -> %s: %v, want one of %v", from, name, o, allowed)
							}
						}
					}
				})
			}
			for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
				change()
			}
			close(done)
			clients.Wait()
		})
	}
}

// backendOf is the backend as it is written in IPv4.
func backendOf(o lab.Outcome) netip.AddrPort {
	addr := o.Backend.Addr()
	if addr.Is6() {
		bytes := addr.As16()
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	return netip.AddrPortFrom(addr, o.Backend.Port())
}

// history is the backends that there were, one pool after the other. It is safe for concurrent use.
type history struct {
	mu      sync.Mutex
	pools   [][]netip.AddrPort
	applied int // pools that are in the kernel, the last of them in force
}

// begin notes that a pool is about to come into force, end that it is.
func (h *history) begin(pool []netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pools = append(h.pools, pool)
}

func (h *history) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.applied = len(h.pools)
}

// now is the pool in force.
func (h *history) now() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.applied - 1
}

// since are the backends of the pools from then on, the one that may be coming included.
func (h *history) since(then int) []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Concat(h.pools[then:]...)
}
