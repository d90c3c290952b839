package ipvs_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// How long to wait for what must come, and for what must not.
var (
	patience = lab.Patient(10 * time.Second)
	moment   = lab.Patient(300 * time.Millisecond)
)

// The Service of most tests, in IPv4.
var (
	vip      = netip.MustParseAddr("10.96.0.10")
	external = netip.MustParseAddr("198.51.100.10")
)

// site is a lab with a dataplane on its node.
type site struct {
	*lab.Lab
	t         *testing.T
	family    proxy.Family
	mode      proxy.Mode
	dataplane proxy.Dataplane
	node      *proxy.Node
	ports     map[proxy.ServicePortName]*proxy.ServicePort
}

// each runs a test in both families, in a lab of its own.
func each(t *testing.T, f func(t *testing.T, s *site)) { eachWith(t, ipvs.Config{}, f) }

func eachWith(t *testing.T, cfg ipvs.Config, f func(t *testing.T, s *site)) {
	for _, family := range proxy.Families {
		t.Run(family.String(), func(t *testing.T) {
			t.Parallel()
			l := lab.Start(t, lab.Config{Pods: 2})
			s := &site{Lab: l, t: t, family: family, mode: ipvs.NewMode(cfg), ports: map[proxy.ServicePortName]*proxy.ServicePort{}}
			s.node = &proxy.Node{
				Family:         family,
				Name:           "node",
				IP:             l.Node.Addr(family),
				Addrs:          l.Node.Addrs(family),
				NodePorts:      proxy.NodePortAddrs{All: true},
				PodSource:      proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: lab.PrefixIn(family, lab.ClusterCIDR)},
				MasqueradeMark: 1 << 14,
				ServiceCIDRs:   []netip.Prefix{lab.PrefixIn(family, lab.ServiceCIDR)},
			}
			for _, pod := range l.Pods {
				s.must(pod.Serve(proxy.TCP, 8080))
				s.must(pod.Serve(proxy.UDP, 8080))
			}
			s.restart()
			t.Cleanup(func() {
				if t.Failed() {
					_ = l.Node.Do(func() error { t.Log(dump(family)); return nil })
				}
			})
			f(t, s)
		})
	}
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// restart forgets everything but the kernel.
func (s *site) restart() {
	s.t.Helper()
	d, err := s.mode.New(s.family)
	s.must(err)
	s.dataplane = d
}

// run runs a command line on the node.
func (s *site) run(line string) string {
	s.t.Helper()
	words := strings.Fields(line)
	out, err := s.Node.Run(words[0], words[1:]...)
	s.must(err)
	return out
}

// ip is the program ip for the family.
func (s *site) ip(line string) string {
	s.t.Helper()
	if s.family == proxy.IPv6 {
		return s.run("ip -6 " + line)
	}
	return s.run("ip -4 " + line)
}

// in is an address of the family with a port.
func (s *site) in(a netip.Addr, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(lab.In(s.family, a), port)
}

// text is an address and port as ipvsadm takes it.
func (s *site) text(a netip.Addr, port uint16) string { return s.in(a, port).String() }

// pods are backends.
func (s *site) pods(list ...*lab.Host) []proxy.Backend {
	var all []proxy.Backend
	for _, h := range list {
		all = append(all, proxy.Backend{Addr: netip.AddrPortFrom(h.Addr(s.family), 8080), Local: true})
	}
	return all
}

// cluster is a route to all backends.
var cluster = proxy.Every(proxy.Route{Verdict: proxy.Forward})

// web is a Service at vip:80 and some more addresses.
func (s *site) web(protocol proxy.Protocol, backends []proxy.Backend, more ...proxy.Frontend) *proxy.ServicePort {
	port := &proxy.ServicePort{
		Name:      proxy.ServicePortName{Namespace: "testing", Name: "web", Protocol: protocol},
		Frontends: append([]proxy.Frontend{{Kind: proxy.ClusterIP, Addr: s.in(vip, 80), Routes: cluster}}, more...),
		Cluster:   backends,
	}
	if protocol == proxy.UDP {
		for _, b := range backends {
			port.Keep = append(port.Keep, b.Addr)
		}
	}
	return port
}

// nodePort is a frontend on port 30080 of all addresses of the node.
func (s *site) nodePort() proxy.Frontend {
	return proxy.Frontend{
		Kind: proxy.NodePort, Addr: netip.AddrPortFrom(s.family.Any(), 30080),
		Routes: proxy.Every(proxy.Route{Verdict: proxy.Forward, Masquerade: true}),
	}
}

// serve replaces ServicePorts and applies that. It gives the number of writes.
func (s *site) serve(ports ...*proxy.ServicePort) int {
	s.t.Helper()
	for _, p := range ports {
		s.ports[p.Name] = p
	}
	return s.apply()
}

// forget removes a ServicePort and applies that.
func (s *site) forget(p *proxy.ServicePort) {
	s.t.Helper()
	delete(s.ports, p.Name)
	s.apply()
}

func (s *site) apply() int {
	s.t.Helper()
	ports := map[proxy.ServicePortName]*proxy.ServicePort{}
	for name, p := range s.ports {
		ports[name] = p
	}
	writes := 0
	s.must(s.Node.Do(func() error {
		report, err := s.dataplane.Apply(context.Background(), proxy.NewSnapshot(s.node, ports))
		for _, x := range report.Tables {
			writes += x.Writes
		}
		for _, x := range report.SetAside {
			s.t.Errorf("%v is set aside: %v", x.Name, x.Err)
		}
		return err
	}))
	return writes
}

// reach wants an answer from one of some hosts.
func (s *site) reach(from *lab.Host, to netip.AddrPort, p proxy.Protocol, want ...*lab.Host) lab.Outcome {
	s.t.Helper()
	o := from.Probe(lab.Probe{To: to, Protocol: p, Timeout: patience})
	for _, h := range want {
		if o.Result == lab.Answered && o.Server == h.Name {
			return o
		}
	}
	s.t.Fatalf("%s to %v/%v: %v, want an answer of a backend", from.Name, to, p, o)
	return o
}

// expect wants a certain end of a probe.
func (s *site) expect(from *lab.Host, to netip.AddrPort, p proxy.Protocol, want lab.Result) {
	s.t.Helper()
	timeout := patience
	if want == lab.Silence {
		timeout = moment
	}
	if o := from.Probe(lab.Probe{To: to, Protocol: p, Timeout: timeout}); o.Result != want {
		s.t.Errorf("%s to %v/%v: %v, want %v", from.Name, to, p, o, want)
	}
}

// refused wants to be told at once, in whatever way, that nobody is there.
func (s *site) refused(from *lab.Host, to netip.AddrPort, p proxy.Protocol) {
	s.t.Helper()
	o := from.Probe(lab.Probe{To: to, Protocol: p, Timeout: patience})
	if o.Result != lab.Refused && o.Result != lab.Reset && o.Result != lab.Unreachable {
		s.t.Errorf("%s to %v/%v: %v, want a refusal", from.Name, to, p, o)
	}
}

// servers is what ipvsadm lists.
func (s *site) servers() string {
	s.t.Helper()
	return s.run("ipvsadm -Sn")
}

// eventually waits until something is so.
func (s *site) eventually(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(3 * patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not in time", what)
		}
	}
}
