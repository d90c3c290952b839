package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vishvananda/netlink"

	"github.com/sluice-proxy/sluice/e2e/load"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// settled is how many connections of a load must show the same before it counts as shown.
const settled = 100

// endpointsChangeWithoutLoss: a deployment is rolled over under load; pods serve until they are
// told to stop, which is after their endpoint is gone.
func endpointsChangeWithoutLoss(s *story) {
	svc := s.service("web")
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.local(), s.remote()) })

	var loads []*load.Load
	families(func(f proxy.Family) {
		loads = append(loads, load.Start(s.Client, s.probe(s.Client, clusterIP(svc, f), answerLimit)))
	})
	for _, step := range [][]*lab.Host{
		{s.local(), s.remote(), s.otherLocal()},
		{s.remote(), s.otherLocal()},
		{s.otherLocal()},
		{s.local(), s.otherLocal()},
	} {
		s.endpoints(svc, ready(step...)...)
		for _, l := range loads {
			eventually(s.T, fmt.Sprintf("load moves to %v", names(step)), func() error { return settledOn(l, names(step)) })
		}
	}
	for _, l := range loads {
		if c := l.Stop(); len(c.Failures) > 0 {
			s.Errorf("connections were lost: %v", c)
		}
	}
}

// settledOn checks that just these servers get connections of late.
func settledOn(l *load.Load, servers []string) error {
	for _, name := range []string{"pod-b", "pod-c", "remote-a"} {
		absent := l.Absent(name)
		switch wanted := slices.Contains(servers, name); {
		case wanted && (absent > settled || !l.Seen(name)):
			return fmt.Errorf("%s gets nothing", name)
		case !wanted && l.Seen(name) && absent < settled:
			return fmt.Errorf("%s still got a connection, %d ago", name, absent)
		}
	}
	return nil
}

func terminatingEndpointsAreTheLastResort(s *story) {
	svc := s.service("web")
	leaving := endpoint{host: s.otherLocal(), terminating: true}
	s.endpoints(svc, endpoint{host: s.local()}, leaving)
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.local()) })
	s.endpoints(svc, endpoint{host: s.local(), notReady: true}, leaving)
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.otherLocal()) })
	s.endpoints(svc, endpoint{host: s.local()}, leaving)
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.local()) })
}

func scaleToZeroAndBack(s *story) {
	const vip = "203.0.113.40"
	svc := s.service("web", loadBalancer)
	s.provide(svc, corev1.LoadBalancerIPModeVIP, vip)
	for range 2 {
		s.endpoints(svc)
		families(func(f proxy.Family) {
			for _, from := range s.everyone() {
				s.ends(from, clusterIP(svc, f), lab.Refused)
				s.ends(from, nodePort(svc, f), lab.Refused)
				s.ends(from, tcp(in(f, vip), servicePort), lab.Refused)
			}
		})
		s.endpoints(svc, ready(s.local(), s.remote())...)
		families(func(f proxy.Family) {
			for _, from := range s.everyone() {
				s.reaches(from, clusterIP(svc, f), s.local(), s.remote())
			}
		})
	}
}

// udpFlowsFollowTheEndpoints: clients that never close their socket, at each kind of frontend.
func udpFlowsFollowTheEndpoints(s *story) {
	const vip, external = "203.0.113.50", "203.0.113.51"
	svc := s.service("dns", loadBalancer, externalIP(external), func(svc *corev1.Service) {
		svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP
	})
	svc = s.provide(svc, corev1.LoadBalancerIPModeVIP, vip)
	s.endpoints(svc, ready(s.local())...)

	var flows []*flow
	families(func(f proxy.Family) {
		for _, to := range []target{clusterIP(svc, f), nodePort(svc, f), tcp(in(f, vip), servicePort), tcp(in(f, external), servicePort)} {
			to = to.over(proxy.UDP)
			s.reaches(s.Client, to, s.local())
			flows = append(flows, s.openFlow(to))
		}
	})
	for _, step := range [][]*lab.Host{{s.remote()}, {s.local()}, {}, {s.otherLocal()}, {}, {s.remote()}} {
		s.endpoints(svc, ready(step...)...)
		s.flowsReach(flows, step)
	}
	s.delete("dns")
	s.flowsReach(flows, nil)
}

// udpFlowsMayBeOlderThanTheService: a client that started first must not be stuck with the way that its packets
// took then.
func udpFlowsMayBeOlderThanTheService(s *story) {
	const external = "203.0.113.52"
	if err := s.World.Serve(proxy.UDP, servicePort); err != nil {
		s.Fatal(err)
	}
	var flows []*flow
	families(func(f proxy.Family) {
		flows = append(flows, s.openFlow(tcp(in(f, external), servicePort).over(proxy.UDP)))
	})
	s.flowsReach(flows, []*lab.Host{s.World})
	svc := s.service("dns", externalIP(external), func(svc *corev1.Service) {
		svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP
	})
	s.endpoints(svc, ready(s.local())...)
	s.flowsReach(flows, []*lab.Host{s.local()})
}

// sharedAddressHasOneOwner: two Services claim one address; the older one has it.
func sharedAddressHasOneOwner(s *story) {
	const external = "203.0.113.61"
	older := s.service("a-older", externalIP(external))
	s.endpoints(older, ready(s.local())...)
	families(func(f proxy.Family) { s.reaches(s.Client, tcp(in(f, external), servicePort), s.local()) })
	younger := s.service("b-younger", externalIP(external))
	s.endpoints(younger, ready(s.remote())...)
	families(func(f proxy.Family) {
		s.reaches(s.Client, clusterIP(younger, f), s.remote()) // what nobody else claims is served
		s.reaches(s.Client, tcp(in(f, external), servicePort), s.local())
	})
	s.delete("a-older")
	families(func(f proxy.Family) { s.reaches(s.Client, tcp(in(f, external), servicePort), s.remote()) })
}

// flow is a UDP client with a fixed source port.
type flow struct {
	to   target
	conn *lab.Conn
}

func (s *story) openFlow(to target) *flow {
	s.Helper()
	p := s.probe(s.Client, to, answerLimit)
	p.From = netip.AddrPortFrom(p.From.Addr(), 5353)
	conn, o := s.Client.Connect(p)
	if conn == nil {
		s.Fatalf("open flow to %v: %v", to, o)
	}
	s.Cleanup(conn.Close)
	return &flow{to, conn}
}

// flowsReach waits until each flow is answered by one of the hosts, or by nobody if there is none.
func (s *story) flowsReach(flows []*flow, hosts []*lab.Host) {
	s.Helper()
	for _, fl := range flows {
		eventually(s.T, fmt.Sprintf("UDP flow to %v moves to %v", fl.to, names(hosts)), func() error {
			o := fl.conn.Again(silenceLimit)
			switch {
			case len(hosts) == 0 && o.Result != lab.Answered:
				return nil
			case len(hosts) > 0 && o.Result == lab.Answered && slices.Contains(names(hosts), o.Server):
				return nil
			}
			return errors.New(o.String())
		})
	}
}

func changedTypeTakesItsFrontendsAlong(s *story) {
	const vip = "203.0.113.60"
	svc := s.service("web", loadBalancer, externalLocal)
	svc = s.provide(svc, corev1.LoadBalancerIPModeVIP, vip)
	s.endpoints(svc, ready(s.local())...)
	healthCheck := fmt.Sprintf("http://%v:%d/", lab.NodeIP, svc.Spec.HealthCheckNodePort)
	families(func(f proxy.Family) {
		s.reaches(s.Client, nodePort(svc, f), s.local())
		s.reaches(s.Client, tcp(in(f, vip), servicePort), s.local())
	})
	eventually(s.T, "health check port answers", func() error { return s.wantStatus(healthCheck, 200) })

	now := s.update(svc, func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeClusterIP
		svc.Spec.ExternalTrafficPolicy = ""
		svc.Spec.HealthCheckNodePort = 0
		svc.Spec.Ports[0].NodePort = 0
		svc.Spec.AllocateLoadBalancerNodePorts = nil
	})
	s.provide(now, corev1.LoadBalancerIPModeVIP)
	families(func(f proxy.Family) {
		for _, from := range s.everyone() {
			s.unserved(from, nodePort(svc, f))
			s.unserved(from, tcp(in(f, vip), servicePort).port(servicePort))
			s.reaches(from, clusterIP(svc, f), s.local())
		}
	})
	eventually(s.T, "health check port is closed", func() error {
		if a, err := get(s.Client, healthCheck); err == nil {
			return fmt.Errorf("answered %d", a.Status)
		}
		return nil
	})
	families(func(f proxy.Family) {
		for _, gone := range []string{in(f, vip).String(), fmt.Sprint(svc.Spec.Ports[0].NodePort), fmt.Sprint(svc.Spec.HealthCheckNodePort)} {
			s.unmentioned(f, gone)
		}
	})
}

func deletedServiceIsGone(s *story) {
	svc := s.service("web", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort })
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) { s.reaches(s.Client, nodePort(svc, f), s.local(), s.remote()) })
	s.delete("web")
	families(func(f proxy.Family) {
		for _, from := range s.everyone() {
			s.unserved(from, clusterIP(svc, f))
			s.unserved(from, nodePort(svc, f))
		}
		s.unmentioned(f, s.namespace+"/web")
		s.unmentioned(f, clusterIP(svc, f).Addr().String())
	})
	// Its slices are still there: a Service that comes after its endpoints is served as well.
	svc = s.service("web")
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.local(), s.remote()) })
}

// resentSlicesWriteNothing: controllers touch EndpointSlices without changing what they mean.
func resentSlicesWriteNothing(s *story) {
	const events = "kubeproxy_sync_proxy_rules_endpoint_changes_total"
	svc := s.service("web")
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.local(), s.remote()) })

	s.awaitSettled(s.T)
	seen := s.metric(s.T, events)
	before := [...]string{s.save(s.T, proxy.IPv4), s.save(s.T, proxy.IPv6)}
	syncs := s.syncs()
	all, err := s.api.DiscoveryV1().EndpointSlices("").List(s.Context(), metav1.ListOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for i := range all.Items {
		slice := &all.Items[i]
		slice.Annotations = map[string]string{"touched-by": s.Name()}
		if _, err := s.api.DiscoveryV1().EndpointSlices(slice.Namespace).Update(s.Context(), slice, metav1.UpdateOptions{}); err != nil {
			s.Fatal(err)
		}
	}
	eventually(s.T, "all slices were seen again", func() error {
		if now := s.metric(s.T, events); now < seen+float64(len(all.Items)) {
			return fmt.Errorf("%v events, %v before, %d slices", now, seen, len(all.Items))
		}
		return nil
	})
	if after := [...]string{s.save(s.T, proxy.IPv4), s.save(s.T, proxy.IPv6)}; after != before {
		s.Errorf("rules changed:\n%s\nbefore:\n%s", after, before)
	}
	// Whatever the events had asked for would come with, or before, a real change.
	s.endpoints(svc, ready(s.local())...)
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.local()) })
	if now := s.syncs(); now > syncs+2 {
		s.Errorf("%v syncs for one change in each family", now-syncs)
	}
}

// syncs is the number of times that rules were written, both families together.
func (s *story) syncs() (n float64) {
	families(func(f proxy.Family) {
		n += s.metric(s.T, fmt.Sprintf(`kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="%v"}`, f))
	})
	return n
}

func newNodeAddressServesNodePorts(s *story) {
	const late = "192.168.50.77"
	svc := s.service("web", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort })
	s.endpoints(svc, ready(s.local())...)
	families(func(f proxy.Family) { s.reaches(s.Client, nodePort(svc, f), s.local()) })
	link, err := s.Node.Netlink().LinkByName("eth0")
	if err != nil {
		s.Fatal(err)
	}
	families(func(f proxy.Family) {
		addr, err := netlink.ParseAddr(netip.PrefixFrom(in(f, late), in(f, late).BitLen()).String())
		if err != nil {
			s.Fatal(err)
		}
		if err := s.Node.Netlink().AddrAdd(link, addr); err != nil {
			s.Fatal(err)
		}
		to := tcp(in(f, late), svc.Spec.Ports[0].NodePort)
		s.reaches(s.Client, to, s.local())
		if err := s.Node.Netlink().AddrDel(link, addr); err != nil {
			s.Fatal(err)
		}
		s.unserved(s.Client, to)
		s.reaches(s.Client, nodePort(svc, f), s.local())
	})
}
