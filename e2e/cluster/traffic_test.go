package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

var (
	answerLimit  = lab.Patient(5 * time.Second)        // for an answer that should come
	silenceLimit = lab.Patient(500 * time.Millisecond) // for one that should not
)

// How many connections show which backends a client reaches: each of three is missed by
// maxProbes with a probability below 1e-11.
const minProbes, maxProbes = 16, 64

// target is where a client sends to.
type target struct {
	netip.AddrPort
	protocol proxy.Protocol
}

func (t target) String() string { return fmt.Sprintf("%v/%v", t.AddrPort, t.protocol) }

func tcp(a netip.Addr, port int32) target {
	return target{netip.AddrPortFrom(a, uint16(port)), proxy.TCP}
}

func (t target) over(p proxy.Protocol) target { return target{t.AddrPort, p} }

func (t target) port(p uint16) target {
	return target{netip.AddrPortFrom(t.Addr(), p), t.protocol}
}

// in is the address in a family, given in IPv4.
func in(f proxy.Family, addr string) netip.Addr { return lab.In(f, netip.MustParseAddr(addr)) }

// clusterIP is a Service's frontend in a family.
func clusterIP(svc *corev1.Service, f proxy.Family) target {
	for _, ip := range svc.Spec.ClusterIPs {
		if a := netip.MustParseAddr(ip); proxy.FamilyOf(a) == f {
			return tcp(a, svc.Spec.Ports[0].Port)
		}
	}
	return target{}
}

// nodePort is a Service's first node port on the node's primary address.
func nodePort(svc *corev1.Service, f proxy.Family) target {
	return tcp(lab.In(f, lab.NodeIP), svc.Spec.Ports[0].NodePort)
}

// families runs f for both.
func families(f func(proxy.Family)) {
	for _, family := range proxy.Families {
		f(family)
	}
}

func other(f proxy.Family) proxy.Family {
	if f == proxy.IPv4 {
		return proxy.IPv6
	}
	return proxy.IPv4
}

// probe is a connection from a host's first address; the node and pods have their kernel choose.
func (s *story) probe(from *lab.Host, to target, limit time.Duration) lab.Probe {
	p := lab.Probe{To: to.AddrPort, Protocol: to.protocol, Timeout: limit}
	if from == s.Client {
		p.From = netip.AddrPortFrom(from.Addr(proxy.FamilyOf(to.Addr())), 0)
	}
	return p
}

// reaches waits until connections from a host are answered by all of the backends and nobody else.
func (s *story) reaches(from *lab.Host, to target, backends ...*lab.Host) {
	s.Helper()
	eventually(s.T, fmt.Sprintf("%s reaches %v", from.Name, to), func() error { return s.checkReaches(from, to, backends) })
}

func (s *story) checkReaches(from *lab.Host, to target, backends []*lab.Host) error {
	missing := names(backends)
	for i := 0; i < maxProbes && (i < minProbes || len(missing) > 0); i++ {
		o := from.Probe(s.probe(from, to, answerLimit))
		if o.Result != lab.Answered || !slices.Contains(names(backends), o.Server) {
			return fmt.Errorf("%v, want %v", o, names(backends))
		}
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == o.Server })
	}
	if len(missing) > 0 {
		return fmt.Errorf("never reached %v in %d connections", missing, maxProbes)
	}
	return nil
}

func names(hosts []*lab.Host) []string {
	var all []string
	for _, h := range hosts {
		all = append(all, h.Name)
	}
	return all
}

// seenAs waits until the backend sees a connection come from one of the addresses.
func (s *story) seenAs(from *lab.Host, to target, sources []netip.Addr) {
	s.Helper()
	eventually(s.T, fmt.Sprintf("backend of %v sees %s as %v", to, from.Name, sources), func() error {
		o := from.Probe(s.probe(from, to, answerLimit))
		if o.Result != lab.Answered || !slices.Contains(sources, o.Source.Addr()) {
			return fmt.Errorf("%v", o)
		}
		return nil
	})
}

// ends waits until a connection from a host ends so.
func (s *story) ends(from *lab.Host, to target, want lab.Result) {
	s.Helper()
	s.endsAs(from, s.probe(from, to, limitOf(want)), want)
}

// endsFrom is ends for one of the client's addresses.
func (s *story) endsFrom(client netip.Addr, to target, want lab.Result) {
	s.Helper()
	p := s.probe(s.Client, to, limitOf(want))
	p.From = netip.AddrPortFrom(client, 0)
	s.endsAs(s.Client, p, want)
}

func (s *story) endsAs(from *lab.Host, p lab.Probe, want lab.Result) {
	s.Helper()
	eventually(s.T, fmt.Sprintf("%s to %v over %v: %v", from.Name, p.To, p.Protocol, want), func() error {
		if o := from.Probe(p); o.Result != want {
			return fmt.Errorf("%v", o)
		}
		return nil
	})
}

func limitOf(want lab.Result) time.Duration {
	if want == lab.Silence {
		return silenceLimit
	}
	return answerLimit
}

// unserved waits until no pod answers, whatever else becomes of the connection: a packet that the
// node does not care for ends at the world.
func (s *story) unserved(from *lab.Host, to target) {
	s.Helper()
	eventually(s.T, fmt.Sprintf("nobody serves %v to %s", to, from.Name), func() error {
		for range 3 {
			if o := from.Probe(s.probe(from, to, silenceLimit)); s.byPod(o) {
				return fmt.Errorf("%v", o)
			}
		}
		return nil
	})
}

// byPod tells whether a backend answered, rather than the world or nobody.
func (s *story) byPod(o lab.Outcome) bool {
	return o.Result == lab.Answered && o.Server != s.World.Name
}

// unmentioned waits until nothing that the node has in a family mentions the text. What still has connections may go
// later than it is served.
func (s *story) unmentioned(f proxy.Family, text string) {
	s.Helper()
	whole := regexp.MustCompile(`(?m)^(.*[^\w.\n])?` + regexp.QuoteMeta(text) + `([^\w.\n].*)?$`) // no part of another address or number
	eventually(s.T, fmt.Sprintf("%v mentions %s no more", f, text), func() error {
		if found := whole.FindAllString(s.save(s.T, f), -1); len(found) > 0 {
			return errors.New(strings.Join(found, "\n"))
		}
		return nil
	})
}
