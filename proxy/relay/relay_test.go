package relay

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const nodePort = 30080

// host is a network namespace with a relay of a family.
type host struct {
	*lab.Namespace
	*Relay
	t      *testing.T
	f      proxy.Family
	failed atomic.Int64
}

func eachHost(t *testing.T, test func(h *host)) {
	for _, f := range proxy.Families {
		t.Run(f.String(), func(t *testing.T) {
			ns, err := lab.NewNamespace()
			if err != nil {
				t.Fatalf("this test needs root and network namespaces: %v", err)
			}
			t.Cleanup(func() { _ = ns.Close() })
			h := &host{Namespace: ns, t: t, f: f}
			h.Relay = New(Config{Listen: ns.Listen, Dial: ns.DialContext, Failed: func(proxy.Family) { h.failed.Add(1) }})
			t.Cleanup(h.Relay.Close)
			test(h)
		})
	}
}

// backend answers each line with its name and the line, and the end of its client's with "bye".
func (h *host) backend(name string) proxy.Backend {
	h.t.Helper()
	l, err := h.Listen(h.t.Context(), "tcp", netip.AddrPortFrom(h.f.Localhost(), 0).String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					_, _ = fmt.Fprintf(c, "%s %s\n", name, lines.Text())
				}
				_, _ = io.WriteString(c, "bye\n")
			}()
		}
	}()
	return proxy.Backend{Addr: l.Addr().(*net.TCPAddr).AddrPort(), Local: true}
}

// web is a Service with a NodePort.
func (h *host) web(cluster ...proxy.Backend) *proxy.ServicePort {
	route := proxy.Route{Verdict: proxy.Forward, Masquerade: true}
	if len(cluster) == 0 {
		route = proxy.Route{}
	}
	return h.port(&proxy.ServicePort{Cluster: cluster}, proxy.Every(route))
}

func (h *host) port(sp *proxy.ServicePort, routes proxy.Routes) *proxy.ServicePort {
	sp.Name = proxy.ServicePortName{Namespace: "ns", Name: "web", Protocol: proxy.TCP}
	sp.Frontends = []proxy.Frontend{
		{Kind: proxy.ClusterIP, Addr: netip.AddrPortFrom(h.f.Any().Next(), 80), Routes: routes},
		{Kind: proxy.NodePort, Addr: netip.AddrPortFrom(h.f.Any(), nodePort), Routes: routes},
	}
	return sp
}

// apply applies a snapshot with some ports, on a node that asks for localhost.
func (h *host) apply(ports ...*proxy.ServicePort) { h.applyOn(true, ports...) }

func (h *host) applyOn(relayed bool, ports ...*proxy.ServicePort) {
	node := &proxy.Node{Family: h.f, NodePorts: proxy.NodePortAddrs{Relayed: relayed}}
	all := map[proxy.ServicePortName]*proxy.ServicePort{}
	for _, sp := range ports {
		all[sp.Name] = sp
	}
	h.Applied(h.t.Context(), proxy.NewSnapshot(node, all))
}

func (h *host) connect() (net.Conn, error) {
	c, err := h.DialContext(h.t.Context(), "tcp", netip.AddrPortFrom(h.f.Localhost(), nodePort).String())
	if err == nil {
		h.t.Cleanup(func() { _ = c.Close() })
		err = c.SetDeadline(time.Now().Add(time.Minute))
	}
	return c, err
}

func (h *host) mustConnect() net.Conn {
	h.t.Helper()
	c, err := h.connect()
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// ask is the backend that answers, "" if none does.
func ask(c net.Conn) string {
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return ""
	}
	line, _ := bufio.NewReader(c).ReadString('\n')
	name, _, _ := strings.Cut(line, " ")
	return strings.TrimSpace(name)
}

func (h *host) wantRefused(when string) {
	h.t.Helper()
	if c, err := h.connect(); err == nil {
		h.t.Errorf("%s: connected, %q answered", when, ask(c))
	}
}

func TestConnectionsAreBalancedAndFollowEndpoints(t *testing.T) {
	eachHost(t, func(h *host) {
		a, b := h.backend("a"), h.backend("b")
		h.apply(h.web(a, b))
		seen := map[string]int{}
		for range 64 {
			seen[ask(h.mustConnect())]++
		}
		if len(seen) != 2 || seen["a"] == 0 || seen["b"] == 0 {
			h.t.Errorf("answers by %v", seen)
		}
		h.apply(h.web(a))
		old := h.mustConnect()
		if got := ask(old); got != "a" {
			h.t.Fatalf("%q answered, want a", got)
		}
		h.apply(h.web(b))
		for range 8 {
			if got := ask(h.mustConnect()); got != "b" {
				h.t.Errorf("a new connection: %q answered, want b", got)
			}
		}
		if got := ask(old); got != "a" {
			h.t.Errorf("the old connection: %q answered, want a", got)
		}
		h.apply(h.web())
		h.wantRefused("without endpoints")
		if got := ask(old); got != "" {
			h.t.Errorf("the port is closed, and %q answers the old connection", got)
		}
		h.apply(h.web(b))
		if got := ask(h.mustConnect()); got != "b" {
			h.t.Errorf("with endpoints again: %q answered, want b", got)
		}
	})
}

func TestOnlyTCPNodePortsOfNodesThatAskAreServed(t *testing.T) {
	eachHost(t, func(h *host) {
		a := h.backend("a")
		h.applyOn(false, h.web(a))
		h.wantRefused("not asked for")
		h.apply(h.web(a))
		if got := ask(h.mustConnect()); got != "a" {
			h.t.Errorf("asked for: %q answered", got)
		}
		h.applyOn(false, h.web(a))
		h.wantRefused("asked for no more")
		udp := h.web(a)
		udp.Name.Protocol = proxy.UDP
		h.apply(udp)
		h.wantRefused("UDP")
		h.apply(h.web(a))
		h.apply()
		h.wantRefused("without a Service")
	})
}

// The numbers of two Services are exchanged at one moment.
func TestNumberMovesToAnotherService(t *testing.T) {
	eachHost(t, func(h *host) {
		first, second := h.web(h.backend("a")), h.web(h.backend("b"))
		second.Name.Name = "other"
		second.Frontends[1].Addr = netip.AddrPortFrom(h.f.Any(), nodePort+1)
		h.apply(first, second)
		old := h.mustConnect()
		if got := ask(old); got != "a" {
			h.t.Fatalf("%q answered, want a", got)
		}
		first, second = h.web(first.Cluster...), h.web(second.Cluster...)
		second.Name.Name = "other"
		first.Frontends[1].Addr = netip.AddrPortFrom(h.f.Any(), nodePort+1)
		h.apply(first, second)
		if got := ask(h.mustConnect()); got != "b" {
			h.t.Errorf("%q answered, want b", got)
		}
		if got := ask(old); got != "" {
			h.t.Errorf("%q answers a connection through a port that another Service has", got)
		}
	})
}

func TestPolicyLocalReachesLocalEndpointsOnly(t *testing.T) {
	eachHost(t, func(h *host) {
		local, remote := h.backend("local"), h.backend("remote")
		cluster := proxy.Route{Verdict: proxy.Forward, Masquerade: true}
		routes := proxy.Routes{cluster, cluster, {Verdict: proxy.Forward, Pool: proxy.LocalPool}}
		h.apply(h.port(&proxy.ServicePort{Cluster: []proxy.Backend{local, remote}, Local: []proxy.Backend{local}}, routes))
		for range 16 {
			if got := ask(h.mustConnect()); got != "local" {
				h.t.Errorf("%q answered", got)
			}
		}
		routes[proxy.FromOutside] = proxy.Route{Verdict: proxy.Drop}
		h.apply(h.port(&proxy.ServicePort{Cluster: []proxy.Backend{remote}}, routes))
		h.wantRefused("without local endpoints")
	})
}

// TestAsNodeReachesWhatTheNodeDoes has backends for the node that the outside does not get.
func TestAsNodeReachesWhatTheNodeDoes(t *testing.T) {
	eachHost(t, func(h *host) {
		h.Relay = New(Config{Listen: h.Listen, Dial: h.DialContext, AsNode: true})
		h.t.Cleanup(h.Relay.Close)
		routes := proxy.Every(proxy.Route{Verdict: proxy.Forward, Masquerade: true})
		routes[proxy.FromOutside] = proxy.Route{Verdict: proxy.Drop}
		h.apply(h.port(&proxy.ServicePort{Cluster: []proxy.Backend{h.backend("remote")}}, routes))
		if got := ask(h.mustConnect()); got != "remote" {
			h.t.Errorf("%q answered", got)
		}
	})
}

func TestEndsAreTold(t *testing.T) {
	eachHost(t, func(h *host) {
		h.apply(h.web(h.backend("a")))
		c := h.mustConnect()
		if got := ask(c); got != "a" {
			h.t.Fatalf("%q answered", got)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			h.t.Fatal(err)
		}
		// The backend goes on after its client's end, and its own end arrives.
		if rest, err := io.ReadAll(c); string(rest) != "bye\n" || err != nil {
			h.t.Errorf("after the client's end: %q, %v", rest, err)
		}
	})
}

func TestUnreachableBackendEndsTheConnection(t *testing.T) {
	eachHost(t, func(h *host) {
		nobody := proxy.Backend{Addr: netip.AddrPortFrom(h.f.Localhost(), 9)}
		h.apply(h.web(nobody))
		if rest, err := io.ReadAll(h.mustConnect()); len(rest) > 0 || err != nil {
			h.t.Errorf("got %q, %v, want the end", rest, err)
		}
	})
}

func TestTakenPortIsTriedAgainAndHoldsUpNoOther(t *testing.T) {
	eachHost(t, func(h *host) {
		holder, err := h.Listen(h.t.Context(), "tcp", netip.AddrPortFrom(h.f.Localhost(), nodePort).String())
		if err != nil {
			h.t.Fatal(err)
		}
		a := h.backend("a")
		other := h.web(a)
		other.Name.Name = "other"
		other.Frontends[1].Addr = netip.AddrPortFrom(h.f.Any(), nodePort+1)
		h.apply(h.web(a), other)
		c, err := h.DialContext(h.t.Context(), "tcp", netip.AddrPortFrom(h.f.Localhost(), nodePort+1).String())
		if err != nil {
			h.t.Fatalf("the other port: %v", err)
		}
		if got := ask(c); got != "a" {
			h.t.Errorf("the other port: %q answered", got)
		}
		_ = c.Close()
		if n := h.failed.Load(); n != 1 {
			h.t.Errorf("%d failures are counted", n)
		}
		_ = holder.Close()
		h.apply(h.web(a), other)
		if got := ask(h.mustConnect()); got != "a" {
			h.t.Errorf("the port is free: %q answered", got)
		}
	})
}

// noNetwork listens nowhere until it is told to.
type noNetwork struct {
	works atomic.Bool
	tries atomic.Int32
}

func (n *noNetwork) listen(context.Context, string, string) (net.Listener, error) {
	n.tries.Add(1)
	if !n.works.Load() {
		return nil, fmt.Errorf("taken")
	}
	return &silentListener{closed: make(chan struct{})}, nil
}

// silentListener has no clients.
type silentListener struct {
	net.Listener
	closed chan struct{}
}

func (l *silentListener) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l *silentListener) Close() error              { close(l.closed); return nil }

func TestTakenPortIsTriedAgainAfterSomeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &noNetwork{}
		h := &host{t: t, f: proxy.IPv6, Relay: New(Config{Listen: network.listen})}
		h.apply(h.web(proxy.Backend{Addr: netip.MustParseAddrPort("[fd00::1]:80")}))
		time.Sleep(2*retryInterval + time.Second)
		synctest.Wait()
		if n := network.tries.Load(); n != 3 {
			t.Errorf("%d tries", n)
		}
		network.works.Store(true)
		time.Sleep(10 * retryInterval)
		synctest.Wait()
		if n := network.tries.Load(); n != 4 {
			t.Errorf("%d tries, want one more", n)
		}
		h.Relay.Close()
	})
}

func TestAffinityPinsAllClientsToOneBackend(t *testing.T) {
	backend := func(n byte) proxy.Backend {
		return proxy.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 80)}
	}
	all := []proxy.Backend{backend(1), backend(2), backend(3), backend(4), backend(5), backend(6), backend(7), backend(8)}
	p := &port{}
	p.update(all, time.Minute)
	now := time.Now()
	// moves tells whether many picks, that much later each, are of several backends.
	moves := func(later time.Duration) bool {
		first, moved := p.pick(now), false
		for range 64 {
			now = now.Add(later)
			moved = moved || p.pick(now) != first
		}
		return moved
	}
	if moves(time.Minute) {
		t.Error("clients moved, though each connection came in time")
	}
	if !moves(time.Minute + 1) {
		t.Error("clients never moved, though each connection came too late")
	}
	pinned := p.pick(now)
	var rest []proxy.Backend
	for _, b := range all {
		if b.Addr != pinned {
			rest = append(rest, b)
		}
	}
	p.update(rest, time.Minute)
	if p.pick(now) == pinned {
		t.Error("clients go to a backend that is gone")
	}
	moved := false
	for i := range 64 {
		before := p.pick(now)
		p.update(rest, time.Minute+time.Duration(i+1))
		moved = moved || p.pick(now) != before
	}
	if !moved {
		t.Error("clients stay though the timeout changed")
	}
	p.update(rest, 0)
	if !moves(0) {
		t.Error("clients stay without affinity")
	}
}
