package proxytest

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// These tests are about the scenarios: do they fail when they should?

// saboteur is a mode that does its work wrongly.
type saboteur struct {
	proxy.Mode
	spoil func(*proxy.Snapshot) *proxy.Snapshot // nil: it does nothing at all
}

func (s saboteur) New(f proxy.Family) (proxy.Dataplane, error) {
	d, err := s.Mode.New(f)
	return &sabotaged{Dataplane: d, spoil: s.spoil}, err
}

type sabotaged struct {
	proxy.Dataplane
	spoil       func(*proxy.Snapshot) *proxy.Snapshot
	want, given *proxy.Snapshot
}

func (d *sabotaged) Apply(ctx context.Context, want *proxy.Snapshot) (proxy.Report, error) {
	if d.spoil == nil {
		return proxy.Report{}, nil
	}
	if want != d.want {
		d.want, d.given = want, d.spoil(want)
	}
	return d.Dataplane.Apply(ctx, d.given)
}

// eachPort spoils each ServicePort of a snapshot.
func eachPort(spoil func(*proxy.ServicePort)) func(*proxy.Snapshot) *proxy.Snapshot {
	return func(s *proxy.Snapshot) *proxy.Snapshot {
		spoiled := map[proxy.ServicePortName]*proxy.ServicePort{}
		for name, port := range s.All() {
			p := *port
			p.Frontends = slices.Clone(p.Frontends)
			spoil(&p)
			spoiled[name] = &p
		}
		return proxy.NewSnapshot(s.Node(), spoiled)
	}
}

// eachRoute spoils each route, of each class of sources.
func eachRoute(spoil func(proxy.Source, *proxy.Route)) func(*proxy.Snapshot) *proxy.Snapshot {
	return eachPort(func(p *proxy.ServicePort) {
		for i := range p.Frontends {
			for source := range p.Frontends[i].Routes {
				spoil(proxy.Source(source), &p.Frontends[i].Routes[source])
			}
		}
		// A pool that no route uses is nil, and one that a route uses is not.
		for _, pool := range []struct {
			pool proxy.Pool
			own  *[]proxy.Backend
		}{{proxy.ClusterPool, &p.Cluster}, {proxy.LocalPool, &p.Local}} {
			uses := slices.ContainsFunc(p.Frontends, func(f proxy.Frontend) bool { return f.Routes.Uses(pool.pool) })
			if !uses {
				*pool.own = nil
			} else if *pool.own == nil {
				*pool.own = slices.Concat(p.Cluster, p.Local)
			}
		}
	})
}

// spoiltNode spoils the facts of the node.
func spoiltNode(spoil func(*proxy.Node)) func(*proxy.Snapshot) *proxy.Snapshot {
	return func(s *proxy.Snapshot) *proxy.Snapshot {
		n := *s.Node()
		spoil(&n)
		return proxy.NewSnapshot(&n, maps.Collect(s.All()))
	}
}

// keeper never removes a ServicePort.
func keeper() func(*proxy.Snapshot) *proxy.Snapshot {
	kept := map[proxy.ServicePortName]*proxy.ServicePort{}
	return func(s *proxy.Snapshot) *proxy.Snapshot {
		maps.Copy(kept, maps.Collect(s.All()))
		return proxy.NewSnapshot(s.Node(), maps.Clone(kept))
	}
}

// first never gets further than its first snapshot that is not empty.
func first() func(*proxy.Snapshot) *proxy.Snapshot {
	var held *proxy.Snapshot
	return func(s *proxy.Snapshot) *proxy.Snapshot {
		if held == nil && s.Len() > 0 {
			held = s
		}
		if held != nil {
			return held
		}
		return s
	}
}

// TestKernelScenariosFailWithoutADataplane makes sure that no scenario passes by itself.
func TestKernelScenariosFailWithoutADataplane(t *testing.T) {
	h := sabotagedHarness(nil)
	sites := map[lab.Config]*site{}
	for _, s := range Scenarios() {
		f := proxy.IPv4
		if !s.in(f) {
			f = proxy.IPv6
		}
		if h.attempt(t, h.siteFor(t, sites, s), job{f, s}) == nil {
			t.Errorf("%s passes although nothing is served", s.Name)
		}
	}
}

// TestKernelScenariosNoticeSabotage spoils what a mode is told, one thing at a time, and wants a scenario
// of the rule that this breaks to fail.
func TestKernelScenariosNoticeSabotage(t *testing.T) {
	tests := []struct {
		name  string
		rule  string
		spoil func(*proxy.Snapshot) *proxy.Snapshot
	}{
		{"masquerades nothing", "R124", eachRoute(func(_ proxy.Source, r *proxy.Route) { r.Masquerade = false })},
		{"masquerades everything", "R84", eachRoute(func(_ proxy.Source, r *proxy.Route) { r.Masquerade = r.Verdict == proxy.Forward })},
		{"takes nobody for a pod", "R85", spoiltNode(func(n *proxy.Node) { n.PodSource = proxy.PodSource{} })},
		{"takes clients for pods", "R84", spoiltNode(func(n *proxy.Node) { n.PodSource.Prefix = lab.ClientCIDR })},
		{"forgets that endpoints are local", "R126", eachPort(func(p *proxy.ServicePort) {
			p.Cluster, p.Local = remote(p.Cluster), remote(p.Local)
		})},
		{"ignores external policies", "R84", eachRoute(func(_ proxy.Source, r *proxy.Route) { r.Pool = proxy.ClusterPool })},
		{"ignores the short way of pods", "R85", eachRoute(func(s proxy.Source, r *proxy.Route) {
			if s == proxy.FromPod && r.Verdict == proxy.Forward {
				r.Pool = proxy.LocalPool
			}
		})},
		{"serves one endpoint only", "R20", eachPort(func(p *proxy.ServicePort) { p.Cluster = p.Cluster[:min(len(p.Cluster), 1)] })},
		{"rejects what it should drop", "R83", eachRoute(func(_ proxy.Source, r *proxy.Route) {
			if r.Verdict == proxy.Drop {
				r.Verdict = proxy.Reject
			}
		})},
		{"drops what it should reject", "R110", eachRoute(func(_ proxy.Source, r *proxy.Route) {
			if r.Verdict == proxy.Reject {
				r.Verdict = proxy.Drop
			}
		})},
		{"forgets source ranges", "R65", eachPort(func(p *proxy.ServicePort) {
			for i := range p.Frontends {
				p.Frontends[i].Allowed = nil
			}
		})},
		{"forgets affinity", "R100", eachPort(func(p *proxy.ServicePort) { p.Affinity = 0 })},
		{"always has affinity", "R108", eachPort(func(p *proxy.ServicePort) { p.Affinity = time.Hour })},
		{"serves NodePorts everywhere", "R30", spoiltNode(func(n *proxy.Node) { n.NodePorts = proxy.NodePortAddrs{All: true} })},
		{"serves NodePorts on loopback", "R40", spoiltNode(func(n *proxy.Node) { n.NodePorts.Localhost = true })},
		{"does not serve NodePorts on loopback", "R38", spoiltNode(func(n *proxy.Node) { n.NodePorts.Localhost = false })},
		{"does not know the ServiceCIDR", "R24", spoiltNode(func(n *proxy.Node) { n.ServiceCIDRs = nil })},
		{"forgets external IPs", "R50", eachPort(func(p *proxy.ServicePort) {
			p.Frontends = slices.DeleteFunc(p.Frontends, func(f proxy.Frontend) bool { return f.Kind == proxy.ExternalIP })
		})},
		{"forgets health check ports", "R133", eachPort(func(p *proxy.ServicePort) { p.HealthCheckNodePort = 0 })},
		{"never removes a Service", "R16", keeper()},
		{"never changes anything", "R117", first()},
	}
	sites := map[lab.Config]*site{}
	for _, test := range tests {
		t.Run(test.name, func(sub *testing.T) {
			h := sabotagedHarness(test.spoil)
			for _, s := range Scenarios() {
				if slices.Contains(s.Rules, test.rule) && s.in(proxy.IPv4) {
					if failures := h.attempt(sub, h.siteFor(t, sites, s), job{proxy.IPv4, s}); failures != nil {
						sub.Logf("%s: %s", s.Name, failures[0])
						return
					}
				}
			}
			sub.Errorf("no scenario of %s fails", test.rule)
		})
	}
}

// remote are backends that are on other nodes.
func remote(backends []proxy.Backend) []proxy.Backend {
	var all []proxy.Backend
	for _, b := range backends {
		b.Local = false
		all = append(all, b)
	}
	return all
}

func sabotagedHarness(spoil func(*proxy.Snapshot) *proxy.Snapshot) *Harness {
	return &Harness{
		Mode: saboteur{iptables.NewMode(iptables.Config{Backend: xtables.NFT, DropInvalid: true}), spoil},
		Firewall: IptablesFirewall(func(f proxy.Family) string {
			if f == proxy.IPv6 {
				return "ip6tables-nft"
			}
			return "iptables-nft"
		}),
		hasty: true,
	}
}

// attempt plays a scenario and returns what packets it misses, nil if none. Other trouble ends the test.
func (h *Harness) attempt(t *testing.T, at *site, j job) []string {
	r := &recorder{ctx: t.Context()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.cleanUp()
		h.play(r, at, j)
	}()
	<-done
	if r.trouble != "" {
		t.Fatalf("%s: %s", j.name(), r.trouble)
	}
	return r.failures
}

// recorder is a reporter that only takes notes. It is safe for concurrent use.
type recorder struct {
	ctx context.Context

	mu       sync.Mutex
	failures []string
	trouble  string
	cleanups []func()
}

func (r *recorder) Helper()                  {}
func (r *recorder) Log(...any)               {}
func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) cleanUp() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.trouble = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures != nil || r.trouble != ""
}
