package healthcheck

import (
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/httpserver"
)

// Config configures a Server. Families and SyncPeriod are required.
type Config struct {
	// Families are those that the proxy serves. All of them must be in the kernel before the
	// node is healthy.
	Families []proxy.Family

	// SyncPeriod is half the time that a change may wait before its family counts as stuck.
	SyncPeriod time.Duration

	// Disabled says that nobody asks for the health of the node, so the ports of Services
	// answer for their endpoints alone.
	Disabled bool

	// Healthz and Livez, when not nil, are told the code of every answer.
	Healthz, Livez func(code int)

	// ListenFailed, when not nil, is told once when the port of a Service cannot be served.
	ListenFailed func(service proxy.ServiceName, port uint16, err error)

	Listen httpserver.ListenFunc // nil is httpserver.Listen
}

// Server knows the health of the proxy and answers for it. It is safe for concurrent use, except
// that Services must not be called twice at the same time for one family.
type Server struct {
	cfg   Config
	ports [len(proxy.Families)]*nodePorts

	mu       sync.Mutex
	families [len(proxy.Families)]family
	eligible bool
}

// family is the health of one IP family.
type family struct {
	queued   time.Time // the oldest change that is not applied; zero is none
	updated  time.Time // the last success; zero is never
	degraded bool      // too much is set aside
	setAside map[proxy.ServiceName]bool
}

// New makes a Server that has seen nothing: it lives, but the node is not healthy yet.
func New(cfg Config) *Server {
	if cfg.Listen == nil {
		cfg.Listen = httpserver.Listen
	}
	s := &Server{cfg: cfg}
	for _, f := range proxy.Families {
		s.ports[f] = newNodePorts(s, f)
	}
	return s
}

// Queued says that a change of the family waits to be applied. The first one since the last
// success starts the clock.
func (s *Server) Queued(f proxy.Family) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.families[f].queued.IsZero() {
		s.families[f].queued = time.Now()
	}
}

// Applied says that the kernel serves all of a snapshot, but for what is set aside.
func (s *Server) Applied(f proxy.Family, snapshot *proxy.Snapshot, setAside []proxy.SetAside) {
	services := make(map[proxy.ServiceName]bool, len(setAside))
	for _, a := range setAside {
		services[a.Name.Service()] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.families[f] = family{
		updated:  time.Now(),
		degraded: degraded(snapshot, setAside),
		setAside: services,
	}
}

// apiServer is the Service without which the node is of no use.
var apiServer = proxy.ServiceName{Namespace: "default", Name: "kubernetes"}

// degraded tells whether so much is set aside that the node should get no new work: the API server,
// or more than one ServicePort in twenty.
func degraded(snapshot *proxy.Snapshot, setAside []proxy.SetAside) bool {
	for _, a := range setAside {
		if a.Name.Service() == apiServer {
			return true
		}
	}
	return 20*len(setAside) > snapshot.Len()
}

// SetNodeEligible says whether load balancers may use the node: it is known, and neither being
// deleted nor about to be. At first it is not.
func (s *Server) SetNodeEligible(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.eligible = is
}

// health is what the proxy's condition is at a time.
type health struct {
	now      time.Time
	updated  time.Time // the latest success of any family
	eligible bool
	families map[proxy.Family]familyHealth // those that are served or have been heard of
}

type familyHealth struct {
	updated time.Time
	known   bool // something was queued or applied
	alive   bool // nothing waits for too long
	serving bool // the kernel has all of a snapshot that is whole enough
}

func (s *Server) health() health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := health{now: time.Now(), eligible: s.eligible, families: map[proxy.Family]familyHealth{}}
	for _, f := range s.cfg.Families {
		state := &s.families[f]
		h.families[f] = familyHealth{
			updated: state.updated,
			known:   !state.queued.IsZero() || !state.updated.IsZero(),
			alive:   !s.stuck(f, h.now),
			serving: !state.updated.IsZero() && !state.degraded,
		}
		if state.updated.After(h.updated) {
			h.updated = state.updated
		}
	}
	return h
}

// stuck tells whether a change of the family has waited for too long. The caller holds s.mu.
func (s *Server) stuck(f proxy.Family, now time.Time) bool {
	queued := s.families[f].queued
	return !queued.IsZero() && now.Sub(queued) > 2*s.cfg.SyncPeriod
}

// serves tells whether the proxy does for a Service what it should: changes reach the kernel, in
// every family, and the kernel took the Service in this one.
func (s *Server) serves(f proxy.Family, service proxy.ServiceName) bool {
	if s.cfg.Disabled {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, each := range s.cfg.Families {
		if s.stuck(each, now) {
			return false
		}
	}
	return !s.families[f].setAside[service]
}
