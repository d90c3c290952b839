package relay

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

// dialLimit is how long a backend may take to answer.
const dialLimit = 5 * time.Second

// port is a NodePort that is open. It is safe for concurrent use.
type port struct {
	name     proxy.ServicePortName
	listener net.Listener
	dial     func(ctx context.Context, network, address string) (net.Conn, error)

	mu       sync.Mutex // guards what follows
	backends []proxy.Backend
	conns    map[net.Conn]bool
	closed   bool

	// With affinity all clients, which are this node, have one backend until none has connected for so long.
	affinity time.Duration
	pinned   netip.AddrPort
	latest   time.Time
}

func (p *port) update(backends []proxy.Backend, affinity time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.affinity != affinity {
		p.pinned = netip.AddrPort{}
	}
	p.backends, p.affinity = backends, affinity
}

// pick is the backend of a new connection.
func (p *port) pick(now time.Time) netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	is := func(b proxy.Backend) bool { return b.Addr == p.pinned }
	if p.affinity == 0 || now.Sub(p.latest) > p.affinity || !slices.ContainsFunc(p.backends, is) {
		p.pinned = p.backends[rand.IntN(len(p.backends))].Addr
	}
	p.latest = now
	return p.pinned
}

// accept relays connections until the port is closed.
func (p *port) accept(ctx context.Context, serving *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no file descriptors are left, for instance
			klog.FromContext(ctx).V(2).Info("Connection not accepted", "service", p.name, "reason", err.Error())
			time.Sleep(10 * time.Millisecond)
			continue
		}
		serving.Go(func() { p.relay(ctx, client) })
	}
}

// relay connects a client to a backend. If that fails no other backend is tried: the client may.
func (p *port) relay(ctx context.Context, client net.Conn) {
	if !p.hold(client) {
		return
	}
	defer p.release(client)
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	to := p.pick(time.Now())
	backend, err := p.dial(ctx, "tcp", to.String())
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Backend not reached", "service", p.name, "backend", to, "reason", err.Error())
		return
	}
	if !p.hold(backend) {
		return
	}
	defer p.release(backend)
	var answers sync.WaitGroup
	answers.Go(func() { pass(client, backend) })
	pass(backend, client)
	answers.Wait()
}

// pass copies until from ends, and tells that to the other end. An end that breaks takes the other with it.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
		_ = half.CloseWrite() // it may be gone
		return
	}
	_, _ = to.Close(), from.Close()
}

// hold notes a connection that ends when the port is closed; false if it is.
func (p *port) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *port) release(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

// close ends the port and the connections through it.
func (p *port) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
}
