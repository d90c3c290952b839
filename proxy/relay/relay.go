package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

// retryInterval is how long after a failure a port is tried again: whoever holds it ends without any change of the snapshot.
const retryInterval = 5 * time.Second

// Config says how to reach the network. All fields are optional.
type Config struct {
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)

	// Failed is told of each attempt to listen that did not succeed.
	Failed func(f proxy.Family)

	// AsNode gives clients the backends that NodePorts have for the node, as where rules serve loopback addresses. Otherwise
	// they get those that the outside has, as on kube-proxy's relay: with traffic policy Local none but local ones.
	AsNode bool
}

// Relay listens on the loopback addresses. It is safe for concurrent use.
type Relay struct {
	cfg      Config
	families [len(proxy.Families)]*family
}

// New makes a relay that does not listen yet.
func New(cfg Config) *Relay {
	if cfg.Listen == nil {
		cfg.Listen = new(net.ListenConfig).Listen
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Failed == nil {
		cfg.Failed = func(proxy.Family) {}
	}
	r := &Relay{cfg: cfg}
	for _, f := range proxy.Families {
		r.families[f] = &family{cfg: &r.cfg, Family: f, wanted: map[uint16]*proxy.ServicePort{}, ports: map[uint16]*port{}, failed: map[uint16]bool{}}
	}
	return r
}

// Applied follows a snapshot: new connections go to the backends that it names, those that are open stay where they are, unless
// their port is served no more. A port that cannot be opened is tried again at the next call, and every 5 s.
func (r *Relay) Applied(ctx context.Context, snapshot *proxy.Snapshot) {
	r.families[snapshot.Family()].follow(ctx, snapshot)
}

// Close ends everything, and waits for it. Applied must not be called any more.
func (r *Relay) Close() {
	for _, f := range r.families {
		f.close()
	}
}

// family is the ports of an IP family.
type family struct {
	proxy.Family
	cfg     *Config
	serving sync.WaitGroup // counts what listens and what is relayed

	mu     sync.Mutex // guards what follows
	seen   *proxy.Snapshot
	wanted map[uint16]*proxy.ServicePort // by NodePort
	ports  map[uint16]*port              // that are open
	failed map[uint16]bool               // that could not be opened
	again  *time.Timer                   // nil while none has failed
	closed bool
}

func (f *family) follow(ctx context.Context, snapshot *proxy.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.learn(snapshot)
	f.reconcile(ctx)
}

// learn takes over what has changed. A number that one Service gives up may be what another takes.
func (f *family) learn(snapshot *proxy.Snapshot) {
	var added []*proxy.ServicePort
	for _, change := range snapshot.Changes(f.seen) {
		if n := nodePortOf(change.Old); n != 0 {
			delete(f.wanted, n)
		}
		added = append(added, change.New)
	}
	for _, sp := range added {
		if n := nodePortOf(sp); n != 0 {
			f.wanted[n] = sp
		}
	}
	f.seen = snapshot
}

// nodePortOf is the number of a TCP port that has one, else 0.
func nodePortOf(sp *proxy.ServicePort) uint16 {
	if sp == nil || sp.Name.Protocol != proxy.TCP {
		return 0
	}
	if i := slices.IndexFunc(sp.Frontends, isNodePort); i >= 0 {
		return sp.Frontends[i].Addr.Port()
	}
	return 0
}

func isNodePort(f proxy.Frontend) bool { return f.Kind == proxy.NodePort }

// backendsOf are those of a ServicePort with a NodePort.
func (c *Config) backendsOf(sp *proxy.ServicePort) []proxy.Backend {
	source := proxy.FromOutside
	if c.AsNode {
		source = proxy.FromNode
	}
	route := sp.Frontends[slices.IndexFunc(sp.Frontends, isNodePort)].Routes[source]
	if route.Verdict != proxy.Forward {
		return nil
	}
	return sp.Backends(route.Pool)
}

// reconcile opens and closes what it takes. The caller holds f.mu.
func (f *family) reconcile(ctx context.Context) {
	asked := f.seen.Node().NodePorts.Relayed && !f.closed
	for n, p := range f.ports {
		if sp := f.wanted[n]; !asked || sp == nil || sp.Name != p.name || len(f.cfg.backendsOf(sp)) == 0 {
			p.close()
			delete(f.ports, n)
		}
	}
	for n := range f.failed {
		if sp := f.wanted[n]; !asked || sp == nil || len(f.cfg.backendsOf(sp)) == 0 {
			delete(f.failed, n)
		}
	}
	if !asked {
		return
	}
	for n, sp := range f.wanted {
		if backends := f.cfg.backendsOf(sp); len(backends) > 0 {
			f.serve(ctx, n, sp, backends)
		}
	}
	f.retryLater(ctx)
}

// serve has a port go on with some backends, or opens it.
func (f *family) serve(ctx context.Context, n uint16, sp *proxy.ServicePort, backends []proxy.Backend) {
	if p := f.ports[n]; p != nil {
		p.update(backends, sp.Affinity)
		return
	}
	network := map[proxy.Family]string{proxy.IPv4: "tcp4", proxy.IPv6: "tcp6"}[f.Family]
	listener, err := f.cfg.Listen(ctx, network, netip.AddrPortFrom(f.Localhost(), n).String())
	if err != nil {
		f.cfg.Failed(f.Family)
		if !f.failed[n] {
			err = fmt.Errorf("listen on node port %d: %w", n, err)
			klog.FromContext(ctx).Error(err, "NodePort is not served on localhost", "service", sp.Name, "family", f.Family)
		}
		f.failed[n] = true
		return
	}
	delete(f.failed, n)
	p := &port{name: sp.Name, listener: listener, dial: f.cfg.Dial, conns: map[net.Conn]bool{}}
	p.update(backends, sp.Affinity)
	f.ports[n] = p
	// What brought us here ends; the port stays until it is closed.
	f.serving.Go(func() { p.accept(context.WithoutCancel(ctx), &f.serving) })
}

// retryLater sees to it that what has failed is tried again.
func (f *family) retryLater(ctx context.Context) {
	if len(f.failed) == 0 || f.again != nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	f.again = time.AfterFunc(retryInterval, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.again = nil
		f.reconcile(ctx)
	})
}

func (f *family) close() {
	f.mu.Lock()
	f.closed = true
	if f.again != nil {
		f.again.Stop()
	}
	if f.seen != nil {
		f.reconcile(context.Background())
	}
	f.mu.Unlock()
	f.serving.Wait()
}
