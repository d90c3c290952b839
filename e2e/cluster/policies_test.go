package cluster

import (
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/e2e/load"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

func externalLocal(svc *corev1.Service) {
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func externalPolicyLocalKeepsClients(s *story) {
	const vip = "203.0.113.30"
	svc := s.service("web", loadBalancer, externalLocal)
	s.endpoints(svc, ready(s.local(), s.remote())...)
	s.provide(svc, corev1.LoadBalancerIPModeVIP, vip)
	frontends := func(f proxy.Family) []target { return []target{nodePort(svc, f), tcp(in(f, vip), servicePort)} }
	families(func(f proxy.Family) {
		for _, to := range frontends(f) {
			s.reaches(s.Client, to, s.local())
			s.seenAs(s.Client, to, s.Client.Addrs(f))
			s.reaches(s.visitor(), to, s.local(), s.remote())
			s.reaches(s.Node, to, s.local(), s.remote())
		}
	})
	s.endpoints(svc, ready(s.remote())...)
	families(func(f proxy.Family) {
		for _, to := range frontends(f) {
			s.ends(s.Client, to, lab.Silence)
			s.reaches(s.visitor(), to, s.remote())
			s.reaches(s.Node, to, s.remote())
		}
	})
}

func internalPolicyLocalStaysHome(s *story) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	svc := s.service("web", func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeNodePort
		svc.Spec.InternalTrafficPolicy = &local
	})
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) {
		for _, from := range s.outsiders() {
			s.reaches(from, clusterIP(svc, f), s.local())
			s.reaches(from, nodePort(svc, f), s.local(), s.remote())
		}
	})
	s.endpoints(svc, ready(s.remote())...)
	families(func(f proxy.Family) {
		for _, from := range s.everyone() {
			s.ends(from, clusterIP(svc, f), lab.Silence)
			s.reaches(from, nodePort(svc, f), s.remote())
		}
	})
}

func affinityKeepsClientsTogether(s *story) {
	svc := s.service("web", func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeNodePort
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	})
	s.endpoints(svc, ready(s.local(), s.otherLocal(), s.remote())...)
	families(func(f proxy.Family) {
		for _, client := range s.Client.Addrs(f) {
			eventually(s.T, fmt.Sprintf("%v keeps its backend", client), func() error {
				if !s.kernel.alone {
					return s.checkAffinity(client, clusterIP(svc, f), nodePort(svc, f))
				}
				return errors.Join(s.checkAffinity(client, clusterIP(svc, f)), s.checkAffinity(client, nodePort(svc, f)))
			})
		}
	})
	// Without affinity a client sees all backends again.
	s.update(svc, func(svc *corev1.Service) { svc.Spec.SessionAffinity = corev1.ServiceAffinityNone })
	families(func(f proxy.Family) {
		s.reaches(s.Client, clusterIP(svc, f), s.local(), s.otherLocal(), s.remote())
	})
}

// checkAffinity checks that one client address has one backend at all frontends.
func (s *story) checkAffinity(client netip.Addr, frontends ...target) error {
	servers := map[string]int{}
	for _, to := range frontends {
		p := s.probe(s.Client, to, answerLimit)
		p.From = netip.AddrPortFrom(client, 0)
		c := load.Send(s.Client, p, minProbes)
		if len(c.Failures) > 0 {
			return fmt.Errorf("%v", c)
		}
		for server, n := range c.Answers {
			servers[server] += n
		}
	}
	if len(servers) != 1 {
		return fmt.Errorf("answers: %v", servers)
	}
	return nil
}

func hintsFollowTheNodesZone(s *story) {
	const elsewhere = "zone-b"
	svc := s.service("web")
	s.endpoints(svc, endpoint{host: s.local(), zone: elsewhere}, endpoint{host: s.remote(), zone: zone})
	families(func(f proxy.Family) { s.reaches(s.visitor(), clusterIP(svc, f), s.remote()) })

	s.moveTo(elsewhere)
	families(func(f proxy.Family) { s.reaches(s.visitor(), clusterIP(svc, f), s.local()) })

	s.endpoints(svc, endpoint{host: s.local(), zone: elsewhere}, endpoint{host: s.remote()}) // a hint is missing
	families(func(f proxy.Family) { s.reaches(s.visitor(), clusterIP(svc, f), s.local(), s.remote()) })
	s.moveTo(zone)
}

// moveTo changes the zone label of the node.
func (s *story) moveTo(zone string) {
	s.Helper()
	s.editNode(func(node *corev1.Node) { node.Labels[corev1.LabelTopologyZone] = zone })
}

func (s *story) editNode(edit func(*corev1.Node)) {
	s.Helper()
	node, err := s.api.CoreV1().Nodes().Get(s.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	edit(node)
	if _, err := s.api.CoreV1().Nodes().Update(s.Context(), node, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
}
