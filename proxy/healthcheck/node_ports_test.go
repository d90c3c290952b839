package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/httpserver"
)

var errTaken = errors.New("address is taken")

// host stands for the operating system: it knows who listens where, and lets only one listen on
// an address. Each listener is a real one on a loopback port.
type host struct {
	mu       sync.Mutex
	open     map[string]string // "tcp4 0.0.0.0:30000" → real address
	opened   int
	occupied string // an address that somebody else has
}

func (h *host) listen(ctx context.Context, network, address string) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := network + " " + address
	if _, taken := h.open[key]; taken || key == h.occupied {
		return nil, errTaken
	}
	l, err := httpserver.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if h.open == nil {
		h.open = map[string]string{}
	}
	h.open[key] = l.Addr().String()
	h.opened++
	return &hostListener{Listener: l, host: h, key: key}, nil
}

type hostListener struct {
	net.Listener
	host *host
	key  string
	once sync.Once
}

func (l *hostListener) Close() error {
	l.once.Do(func() {
		l.host.mu.Lock()
		defer l.host.mu.Unlock()
		delete(l.host.open, l.key)
	})
	return l.Listener.Close()
}

// occupy takes an address, or frees it if it is empty.
func (h *host) occupy(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.occupied = key
}

func (h *host) listeners() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, slices.Sorted(maps.Keys(h.open))...)
}

// ask is the answer on an address in short: code, weight and whether the proxy is healthy.
func (h *host) ask(t *testing.T, key string) string {
	t.Helper()
	h.mu.Lock()
	addr := h.open[key]
	h.mu.Unlock()
	if addr == "" {
		return "nobody listens"
	}
	resp, err := http.Get("http://" + addr + "/any/path")
	if err != nil {
		t.Fatalf("ask %s: %v", key, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	proxyState := "sick"
	if strings.Contains(string(body), `"serviceProxyHealthy": true`) {
		proxyState = "healthy"
	}
	return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("X-Load-Balancing-Endpoint-Weight"), " ", proxyState)
}

// servicePort is a port of a Service with a health check port and n ready local endpoints.
func servicePort(name, portName string, health uint16, local ...string) *proxy.ServicePort {
	sp := &proxy.ServicePort{
		Name:                proxy.ServicePortName{Namespace: "ns", Name: name, Port: portName, Protocol: proxy.TCP},
		HealthCheckNodePort: health,
	}
	for _, a := range local {
		sp.LocalReady = append(sp.LocalReady, netip.MustParseAddr(a))
	}
	return sp
}

var everywhere = &proxy.Node{NodePorts: proxy.NodePortAddrs{All: true}}

func on(addrs ...string) *proxy.Node {
	n := &proxy.Node{}
	for _, a := range addrs {
		n.NodePorts.Addrs = append(n.NodePorts.Addrs, netip.MustParseAddr(a))
	}
	return n
}

func snapshot(n *proxy.Node, ports ...*proxy.ServicePort) *proxy.Snapshot {
	m := map[proxy.ServicePortName]*proxy.ServicePort{}
	for _, p := range ports {
		m[p.Name] = p
	}
	return proxy.NewSnapshot(n, m)
}

func newServer(t *testing.T, h *host, change ...func(*Config)) *Server {
	t.Helper()
	cfg := Config{Families: proxy.Families[:], SyncPeriod: syncPeriod, Listen: h.listen}
	for _, c := range change {
		c(&cfg)
	}
	s := New(cfg)
	t.Cleanup(s.CloseServices)
	return s
}

func TestServicePortFollowsItsEndpoints(t *testing.T) {
	var h host
	s := newServer(t, &h)
	const at = "tcp4 0.0.0.0:30001"
	for _, step := range []struct {
		local []string
		want  string
	}{
		{nil, "503 0 healthy"},
		{[]string{"10.0.0.1", "10.0.0.2"}, "200 2 healthy"},
		{[]string{"10.0.0.2"}, "200 1 healthy"},
		{nil, "503 0 healthy"},
	} {
		s.Services(t.Context(), proxy.IPv4, snapshot(everywhere, servicePort("a", "", 30001, step.local...)))
		if got := h.ask(t, at); got != step.want {
			t.Errorf("%v: %s, want %s", step.local, got, step.want)
		}
	}
	s.Services(t.Context(), proxy.IPv4, snapshot(everywhere))
	if got := h.listeners(); len(got) > 0 {
		t.Errorf("still open: %v", got)
	}
	if h.opened != 1 {
		t.Errorf("opened %d times, want once", h.opened)
	}
}

func TestServicesHaveTheirOwnPorts(t *testing.T) {
	var h host
	s := newServer(t, &h)
	first := snapshot(everywhere,
		servicePort("a", "", 30001, "10.0.0.1"),
		servicePort("b", "", 30002, "10.0.0.1", "10.0.0.2"),
		servicePort("c", "", 30003),
		servicePort("without", "", 0, "10.0.0.1"))
	s.Services(t.Context(), proxy.IPv4, first)
	check := func(want map[string]string) {
		t.Helper()
		got := map[string]string{}
		for _, at := range h.listeners() {
			got[at] = h.ask(t, at)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
	}
	check(map[string]string{
		"tcp4 0.0.0.0:30001": "200 1 healthy",
		"tcp4 0.0.0.0:30002": "200 2 healthy",
		"tcp4 0.0.0.0:30003": "503 0 healthy",
	})
	// a goes, b remains, c takes a's port, d comes.
	c := servicePort("c", "", 30001, "10.0.0.9")
	d := servicePort("d", "", 30004, "10.0.0.1")
	s.Services(t.Context(), proxy.IPv4, first.Next(everywhere, map[proxy.ServicePortName]*proxy.ServicePort{
		servicePort("a", "", 0).Name: nil, c.Name: c, d.Name: d,
	}))
	check(map[string]string{
		"tcp4 0.0.0.0:30001": "200 1 healthy",
		"tcp4 0.0.0.0:30002": "200 2 healthy",
		"tcp4 0.0.0.0:30004": "200 1 healthy",
	})
	if h.opened != 5 {
		t.Errorf("opened %d ports, want 5: b must keep its own", h.opened)
	}
}

func TestEndpointsOfAllPortsCountOnce(t *testing.T) {
	var h host
	s := newServer(t, &h)
	first := snapshot(everywhere,
		servicePort("a", "http", 30001, "10.0.0.1", "10.0.0.2"),
		servicePort("a", "https", 30001, "10.0.0.2", "10.0.0.3"))
	s.Services(t.Context(), proxy.IPv4, first)
	if got := h.ask(t, "tcp4 0.0.0.0:30001"); got != "200 3 healthy" {
		t.Errorf("two ports: %s, want 3 endpoints", got)
	}
	s.Services(t.Context(), proxy.IPv4, first.Next(everywhere, map[proxy.ServicePortName]*proxy.ServicePort{
		servicePort("a", "http", 0).Name: nil,
	}))
	if got := h.ask(t, "tcp4 0.0.0.0:30001"); got != "200 2 healthy" {
		t.Errorf("one port: %s, want 2 endpoints", got)
	}
	s.Services(t.Context(), proxy.IPv4, snapshot(everywhere, servicePort("a", "https", 0, "10.0.0.2")))
	if got := h.listeners(); len(got) > 0 {
		t.Errorf("the Service wants no port, open: %v", got)
	}
}

func TestServicePortsListenWhereNodePortsAreServed(t *testing.T) {
	var h host
	s := newServer(t, &h)
	a := servicePort("a", "", 30001, "10.0.0.1")
	v6 := &proxy.Node{Family: proxy.IPv6, NodePorts: proxy.NodePortAddrs{All: true}}
	local := on("192.0.2.1")
	local.NodePorts.Localhost = true
	local6 := &proxy.Node{Family: proxy.IPv6, NodePorts: proxy.NodePortAddrs{Localhost: true}}
	for _, tt := range []struct {
		name string
		node *proxy.Node
		want []string
	}{
		{"everywhere", everywhere, []string{"tcp4 0.0.0.0:30001"}},
		{"two addresses", on("192.0.2.1", "192.0.2.2"), []string{"tcp4 192.0.2.1:30001", "tcp4 192.0.2.2:30001"}},
		{"one of them went, another came", on("192.0.2.2", "192.0.2.3"), []string{"tcp4 192.0.2.2:30001", "tcp4 192.0.2.3:30001"}},
		{"nowhere", on(), []string{}},
		{"loopback too", local, []string{"tcp4 127.0.0.1:30001", "tcp4 192.0.2.1:30001"}},
		{"the other family", v6, []string{"tcp4 127.0.0.1:30001", "tcp4 192.0.2.1:30001", "tcp6 [::]:30001"}},
		{"the other family's loopback", local6, []string{"tcp4 127.0.0.1:30001", "tcp4 192.0.2.1:30001", "tcp6 [::1]:30001"}},
	} {
		s.Services(t.Context(), tt.node.Family, snapshot(tt.node, a))
		if diff := cmp.Diff(tt.want, h.listeners()); diff != "" {
			t.Errorf("%s: listeners (-want +got):\n%s", tt.name, diff)
		}
	}
	if h.opened != 1+2+1+2+1+1 {
		t.Errorf("opened %d ports, want 8: what is served before and after stays open", h.opened)
	}
}

func TestPortThatIsTakenIsReportedOnceAndTriedAgain(t *testing.T) {
	h := host{occupied: "tcp4 192.0.2.2:30001"}
	var events []string
	s := newServer(t, &h, func(c *Config) {
		c.ListenFailed = func(service proxy.ServiceName, port uint16, err error) {
			if !errors.Is(err, errTaken) {
				t.Errorf("event carries %v", err)
			}
			events = append(events, fmt.Sprint(service, " ", port))
		}
	})
	wanted := snapshot(on("192.0.2.1", "192.0.2.2"), servicePort("a", "", 30001, "10.0.0.1"))
	for range 3 {
		s.Services(t.Context(), proxy.IPv4, wanted)
		if got := h.listeners(); len(got) > 0 {
			t.Errorf("open: %v, want none while one of them is taken", got)
		}
	}
	if diff := cmp.Diff([]string{"ns/a 30001"}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	h.occupy("")
	s.Services(t.Context(), proxy.IPv4, wanted)
	for _, at := range []string{"tcp4 192.0.2.1:30001", "tcp4 192.0.2.2:30001"} {
		if got := h.ask(t, at); got != "200 1 healthy" {
			t.Errorf("%s: %s", at, got)
		}
	}
	// A failure after a success is news again.
	h.occupy("tcp4 192.0.2.3:30001")
	s.Services(t.Context(), proxy.IPv4, snapshot(on("192.0.2.1", "192.0.2.3"), servicePort("a", "", 30001)))
	if len(events) != 2 {
		t.Errorf("events %v, want a second one", events)
	}
}

// silent is a listener to which nobody comes.
type silent struct {
	net.Listener
	closed chan struct{}
	once   sync.Once
}

func (l *silent) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

func (l *silent) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func TestPortThatIsTakenIsTriedAgainWithoutAnyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards what follows
		taken := map[string]bool{"192.0.2.1:30001": true, "192.0.2.1:30002": true}
		var tries, served []string
		reports := 0
		s := New(Config{
			Families: proxy.Families[:], SyncPeriod: syncPeriod,
			Listen: func(_ context.Context, _, address string) (net.Listener, error) {
				mu.Lock()
				defer mu.Unlock()
				tries = append(tries, address)
				if taken[address] {
					return nil, errTaken
				}
				served = append(served, address)
				return &silent{closed: make(chan struct{})}, nil
			},
			ListenFailed: func(proxy.ServiceName, uint16, error) { reports++ },
		})
		ctx, cancel := context.WithCancel(t.Context())
		s.Services(ctx, proxy.IPv4, snapshot(on("192.0.2.1"),
			servicePort("a", "", 30001, "10.0.0.1"), servicePort("b", "", 30002), servicePort("c", "", 30003)))
		cancel() // what brought us there ends
		// later gives what is tried after some more ports have become free.
		later := func(free ...string) []string {
			mu.Lock()
			tries = nil
			for _, address := range free {
				delete(taken, address)
			}
			mu.Unlock()
			time.Sleep(retryInterval)
			synctest.Wait()
			return slices.Sorted(slices.Values(tries))
		}
		const first, second, third = "192.0.2.1:30001", "192.0.2.1:30002", "192.0.2.1:30003"
		for i, step := range []struct{ free, tries, served []string }{
			{nil, []string{first, second}, []string{third}},
			{nil, []string{first, second}, []string{third}},
			{[]string{first}, []string{first, second}, []string{third, first}},
			{nil, []string{second}, []string{third, first}},
			{[]string{second}, []string{second}, []string{third, first, second}},
			{nil, nil, []string{third, first, second}},
		} {
			if diff := cmp.Diff(step.tries, later(step.free...)); diff != "" {
				t.Errorf("%d: tried again (-want +got):\n%s", i, diff)
			}
			if diff := cmp.Diff(step.served, served); diff != "" {
				t.Errorf("%d: served (-want +got):\n%s", i, diff)
			}
		}
		if reports != 2 {
			t.Errorf("%d reports, want one for each port", reports)
		}
		s.CloseServices()
	})
}

// The bubble fails if anything is left running in it.
func TestClosedServicesAreNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		s := New(Config{
			Families: proxy.Families[:], SyncPeriod: syncPeriod,
			Listen: func(context.Context, string, string) (net.Listener, error) { tries++; return nil, errTaken },
		})
		s.Services(t.Context(), proxy.IPv4, snapshot(everywhere, servicePort("a", "", 30001)))
		s.Services(t.Context(), proxy.IPv4, snapshot(everywhere, servicePort("a", "", 30001)))
		before, closing := tries, time.Now()
		s.CloseServices()
		if took := time.Since(closing); took > 0 {
			t.Errorf("closing waited %v in the bubble, want it to end what waits", took)
		}
		time.Sleep(time.Minute)
		if tries != before {
			t.Errorf("tried %d times after closing", tries-before)
		}
	})
}

func TestServicePortTellsOfASickProxy(t *testing.T) {
	h := host{}
	a, b := servicePort("a", "", 30001, "10.0.0.1"), servicePort("b", "", 30002, "10.0.0.1")
	wanted := snapshot(everywhere, a, b)
	s := newServer(t, &h, func(c *Config) { c.SyncPeriod = time.Nanosecond })
	expect := func(what, wantA, wantB string) {
		t.Helper()
		if got := h.ask(t, "tcp4 0.0.0.0:30001"); got != wantA {
			t.Errorf("%s: a: %s, want %s", what, got, wantA)
		}
		if got := h.ask(t, "tcp4 0.0.0.0:30002"); got != wantB {
			t.Errorf("%s: b: %s, want %s", what, got, wantB)
		}
	}
	s.Applied(proxy.IPv4, wanted, nil)
	s.Services(t.Context(), proxy.IPv4, wanted)
	expect("applied", "200 1 healthy", "200 1 healthy")

	s.Applied(proxy.IPv4, wanted, []proxy.SetAside{{Name: a.Name, Err: errTaken}})
	expect("a is set aside", "503 1 sick", "200 1 healthy")

	s.Queued(proxy.IPv6)
	expect("a change waits too long", "503 1 sick", "503 1 sick")

	s.Applied(proxy.IPv6, snapshotOf(proxy.IPv6, 0), nil)
	s.Applied(proxy.IPv4, wanted, nil)
	expect("all is well", "200 1 healthy", "200 1 healthy")
}

func TestServicePortIsHealthyWhenNobodyAsksForHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Families: proxy.Families[:], SyncPeriod: syncPeriod, Disabled: true})
		s.Queued(proxy.IPv4)
		time.Sleep(time.Hour)
		if !s.serves(proxy.IPv4, proxy.ServiceName{}) {
			t.Error("sick, want healthy")
		}
	})
}

func TestAnswerOfAServicePort(t *testing.T) {
	var h host
	s := newServer(t, &h)
	s.Services(t.Context(), proxy.IPv4, snapshot(everywhere, servicePort("a", "", 30001, "10.0.0.1")))
	resp, err := http.Post("http://"+h.open["tcp4 0.0.0.0:30001"], "", nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	want := "{\n\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"a\"\n\t},\n\t\"localEndpoints\": 1,\n\t\"serviceProxyHealthy\": true\n}"
	if diff := cmp.Diff(want, string(body)); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "X-Load-Balancing-Endpoint-Weight": "1",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
}

func TestServicePortsOutliveTheCallThatOpenedThem(t *testing.T) {
	var h host
	s := newServer(t, &h)
	ctx, cancel := context.WithCancel(t.Context())
	s.Services(ctx, proxy.IPv4, snapshot(everywhere, servicePort("a", "", 30001, "10.0.0.1")))
	cancel()
	if got := h.ask(t, "tcp4 0.0.0.0:30001"); got != "200 1 healthy" {
		t.Errorf("after the call: %s", got)
	}
	s.CloseServices()
	if got := h.listeners(); len(got) > 0 {
		t.Errorf("after closing: %v", got)
	}
}

// The families do not meet on a port of a real host.
func TestKernelGivesEachFamilyItsPort(t *testing.T) {
	probe, err := httpserver.Listen(t.Context(), "tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(probe.Addr().String()).Port()
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Families: proxy.Families[:], SyncPeriod: syncPeriod, ListenFailed: func(_ proxy.ServiceName, _ uint16, err error) { t.Error(err) }})
	defer s.CloseServices()
	v6 := &proxy.Node{Family: proxy.IPv6, NodePorts: proxy.NodePortAddrs{All: true}}
	s.Services(t.Context(), proxy.IPv4, snapshot(everywhere, servicePort("a", "", port, "10.0.0.1")))
	s.Services(t.Context(), proxy.IPv6, snapshot(v6, servicePort("a", "", port, "fd01::1", "fd01::2")))
	for addr, want := range map[string]string{"127.0.0.1": "1", "[::1]": "2"} {
		resp, err := http.Get(fmt.Sprintf("http://%s:%d", addr, port))
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("X-Load-Balancing-Endpoint-Weight"); got != want {
			t.Errorf("%s: %s endpoints, want %s", addr, got, want)
		}
		_ = resp.Body.Close()
	}
}
