package healthcheck

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

// Services opens and closes the ports on which load balancers ask about single Services, as a
// snapshot that has been applied wants them. Ports that remain keep their connections. What
// cannot be opened is tried again at the next call, and every 5 s.
func (s *Server) Services(ctx context.Context, f proxy.Family, snapshot *proxy.Snapshot) {
	s.ports[f].reconcile(ctx, snapshot)
}

// CloseServices closes the ports of all Services and waits for what goes on there. Services must
// not be called any more.
func (s *Server) CloseServices() {
	for _, p := range s.ports {
		p.closeAll()
		p.serving.Wait()
	}
}

// nodePorts are the health check ports of the Services of a family.
type nodePorts struct {
	server  *Server
	family  proxy.Family
	serving sync.WaitGroup // counts listeners, and the goroutine that tries again

	mu       sync.Mutex         // guards what follows
	retrying context.CancelFunc // nil while nothing is tried again
	seen     *proxy.Snapshot
	addrs    []netip.Addr // where NodePorts are served
	wanted   map[proxy.ServiceName]map[proxy.ServicePortName]*proxy.ServicePort
	services map[proxy.ServiceName]*service
}

// service answers for one Service.
type service struct {
	server *Server
	family proxy.Family
	name   proxy.ServiceName
	port   uint16

	local     atomic.Int64 // how many endpoints are ready here
	listeners map[netip.Addr]*listener
	failed    bool // the failure has been reported
}

func newNodePorts(server *Server, family proxy.Family) *nodePorts {
	return &nodePorts{
		server:   server,
		family:   family,
		wanted:   map[proxy.ServiceName]map[proxy.ServicePortName]*proxy.ServicePort{},
		services: map[proxy.ServiceName]*service{},
	}
}

func (p *nodePorts) reconcile(ctx context.Context, snapshot *proxy.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.learn(snapshot)
	// A port that one Service gives up may be what another one takes.
	for name := range due {
		if s := p.services[name]; s != nil && s.port != p.port(name) {
			p.close(name)
		}
	}
	for name := range due {
		if port := p.port(name); port != 0 {
			p.open(ctx, name, port)
		}
	}
	p.retryLater(ctx)
}

func (p *nodePorts) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.services {
		p.close(name)
	}
	if p.retrying != nil {
		p.retrying()
		p.retrying = nil
	}
}

// learn takes over what has changed and returns the Services that need a look.
func (p *nodePorts) learn(snapshot *proxy.Snapshot) map[proxy.ServiceName]bool {
	due := map[proxy.ServiceName]bool{}
	for name, change := range snapshot.Changes(p.seen) {
		if hasPort(change.Old) || hasPort(change.New) {
			p.set(name, change.New)
			due[name.Service()] = true
		}
	}
	addrs := listenAddrs(snapshot.Node())
	moved := !slices.Equal(addrs, p.addrs)
	for name, s := range p.services {
		if moved || s.failed {
			due[name] = true
		}
	}
	p.seen, p.addrs = snapshot, addrs
	return due
}

func hasPort(sp *proxy.ServicePort) bool { return sp != nil && sp.HealthCheckNodePort != 0 }

func (p *nodePorts) set(name proxy.ServicePortName, sp *proxy.ServicePort) {
	ports := p.wanted[name.Service()]
	if !hasPort(sp) {
		delete(ports, name)
		if len(ports) == 0 {
			delete(p.wanted, name.Service())
		}
		return
	}
	if ports == nil {
		ports = map[proxy.ServicePortName]*proxy.ServicePort{}
		p.wanted[name.Service()] = ports
	}
	ports[name] = sp
}

// port is the health check port of a Service; 0 is none. All ports of a Service name the same one.
func (p *nodePorts) port(name proxy.ServiceName) uint16 {
	for _, sp := range p.wanted[name] {
		return sp.HealthCheckNodePort
	}
	return 0
}

// localEndpoints counts the distinct addresses of ready endpoints on this node, over all ports.
func (p *nodePorts) localEndpoints(name proxy.ServiceName) int {
	distinct := map[netip.Addr]struct{}{}
	for _, sp := range p.wanted[name] {
		for _, a := range sp.LocalReady {
			distinct[a] = struct{}{}
		}
	}
	return len(distinct)
}

// open serves a Service on all addresses, or on none.
func (p *nodePorts) open(ctx context.Context, name proxy.ServiceName, port uint16) {
	s := p.services[name]
	if s == nil {
		s = &service{server: p.server, family: p.family, name: name, port: port, listeners: map[netip.Addr]*listener{}}
		p.services[name] = s
	}
	s.local.Store(int64(p.localEndpoints(name)))
	for addr, l := range s.listeners {
		if !slices.Contains(p.addrs, addr) {
			l.close()
			delete(s.listeners, addr)
		}
	}
	for _, addr := range p.addrs {
		if s.listeners[addr] != nil {
			continue
		}
		l, err := p.listen(ctx, addr, port, s)
		if err != nil {
			s.close()
			p.report(ctx, s, err)
			return
		}
		s.listeners[addr] = l
	}
	s.failed = false
}

// report tells of a failure, once until it is mended.
func (p *nodePorts) report(ctx context.Context, s *service, err error) {
	if s.failed {
		return
	}
	s.failed = true
	err = fmt.Errorf("listen on health check node port %d: %w", s.port, err)
	klog.FromContext(ctx).Error(err, "Load balancers cannot see this node", "service", s.name, "family", p.family)
	if p.server.cfg.ListenFailed != nil {
		p.server.cfg.ListenFailed(s.name, s.port, err)
	}
}

func (p *nodePorts) close(name proxy.ServiceName) {
	p.services[name].close()
	delete(p.services, name)
}

func (s *service) close() {
	s.local.Store(0)
	for addr, l := range s.listeners {
		l.close()
		delete(s.listeners, addr)
	}
}

// ServeHTTP answers whether this node has endpoints of the Service.
func (s *service) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	local, healthy := s.local.Load(), s.server.serves(s.family, s.name)
	code := http.StatusServiceUnavailable
	if local != 0 && healthy {
		code = http.StatusOK
	}
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(local, 10))
	writeJSON(w, code, body(json.MarshalIndent(serviceAnswer{
		Service:             serviceKey{s.name.Namespace, s.name.Name},
		LocalEndpoints:      local,
		ServiceProxyHealthy: healthy,
	}, "", "\t")))
}

type serviceAnswer struct {
	Service             serviceKey `json:"service"`
	LocalEndpoints      int64      `json:"localEndpoints"`
	ServiceProxyHealthy bool       `json:"serviceProxyHealthy"`
}

type serviceKey struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// listenAddrs are the addresses for health check ports: those of NodePorts.
func listenAddrs(n *proxy.Node) []netip.Addr {
	if n.NodePorts.All {
		return []netip.Addr{n.Family.Any()}
	}
	addrs := slices.Clone(n.NodePorts.Addrs)
	if n.NodePorts.Localhost || n.NodePorts.Relayed {
		addrs = append(addrs, n.Family.Localhost())
	}
	return addrs
}
