package cluster

import (
	"crypto/tls"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

func clusterIPServesEveryone(s *story) {
	svc := s.service("web")
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) {
		to := clusterIP(svc, f)
		for _, from := range s.everyone() {
			s.reaches(from, to, s.local(), s.remote())
			s.ends(from, to.port(servicePort+1), lab.Refused)
		}
		s.reaches(s.local(), to, s.local(), s.remote()) // hairpin
		s.seenAs(s.visitor(), to, s.visitor().Addrs(f))
		s.seenAs(s.Client, to, s.Node.Addrs(f))
	})
}

// apiServerIsServed uses what the API server itself published: default/kubernetes.
func apiServerIsServed(s *story) {
	svc, err := s.api.CoreV1().Services("default").Get(s.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	for _, from := range s.everyone() {
		eventually(s.T, from.Name+" speaks TLS with "+svc.Spec.ClusterIP, func() error {
			return from.Do(func() error {
				trusting := &tls.Config{InsecureSkipVerify: true}
				conn, err := tls.Dial("tcp", svc.Spec.ClusterIP+":443", trusting)
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close() }()
				if cn := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; cn != "kube-apiserver" {
					return fmt.Errorf("certificate of %q", cn)
				}
				return nil
			})
		})
	}
}

func nodePortServesEveryone(s *story) {
	svc := s.service("web", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort })
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) {
		to := nodePort(svc, f)
		for _, from := range s.outsiders() {
			s.reaches(from, to, s.local(), s.remote())
		}
		s.reaches(s.Client, tcp(lab.In(f, lab.NodeIP2), svc.Spec.Ports[0].NodePort), s.local(), s.remote())
		s.seenAs(s.Client, to, s.Node.Addrs(f))
	})
}

func externalIPServesEveryone(s *story) {
	const external = "203.0.113.10"
	svc := s.service("web", externalIP(external))
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) {
		to := tcp(in(f, external), servicePort)
		for _, from := range s.outsiders() {
			s.reaches(from, to, s.local(), s.remote())
		}
		s.seenAs(s.visitor(), to, s.Node.Addrs(f))
	})
}

// externalIP gives a Service an external IP in both families.
func externalIP(addr string) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		families(func(f proxy.Family) { svc.Spec.ExternalIPs = append(svc.Spec.ExternalIPs, in(f, addr).String()) })
	}
}

func loadBalancer(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer }

func loadBalancerServesEveryone(s *story) {
	const vip = "203.0.113.20"
	svc := s.service("web", loadBalancer)
	s.endpoints(svc, ready(s.local(), s.remote())...)
	s.provide(svc, corev1.LoadBalancerIPModeVIP, vip)
	families(func(f proxy.Family) {
		for _, from := range s.outsiders() {
			s.reaches(from, tcp(in(f, vip), servicePort), s.local(), s.remote())
			s.reaches(from, nodePort(svc, f), s.local(), s.remote())
		}
	})
}

func loadBalancerSourceRangesHold(s *story) {
	const vip = "203.0.113.21"
	svc := s.service("web", loadBalancer, func(svc *corev1.Service) {
		families(func(f proxy.Family) {
			a := s.Client.Addrs(f)[0]
			svc.Spec.LoadBalancerSourceRanges = append(svc.Spec.LoadBalancerSourceRanges, fmt.Sprintf("%v/%d", a, a.BitLen()))
		})
	})
	s.endpoints(svc, ready(s.local(), s.remote())...)
	s.provide(svc, corev1.LoadBalancerIPModeVIP, vip)
	families(func(f proxy.Family) {
		to := tcp(in(f, vip), servicePort)
		s.reaches(s.Client, to, s.local(), s.remote())
		s.endsFrom(s.Client.Addrs(f)[1], to, lab.Silence)
		s.ends(s.visitor(), to, lab.Silence)
		s.ends(s.Node, to, lab.Silence)
		s.reaches(s.visitor(), nodePort(svc, f), s.local(), s.remote())
	})
	s.update(svc, func(svc *corev1.Service) { svc.Spec.LoadBalancerSourceRanges = nil })
	families(func(f proxy.Family) {
		s.reaches(s.visitor(), tcp(in(f, vip), servicePort), s.local(), s.remote())
	})
}

// proxyModeAddressesAreLeftAlone: the load balancer wants to see even the cluster's own traffic.
func proxyModeAddressesAreLeftAlone(s *story) {
	const vip = "203.0.113.22"
	if err := s.World.Serve(proxy.TCP, servicePort); err != nil {
		s.Fatal(err)
	}
	svc := s.service("web", loadBalancer)
	s.endpoints(svc, ready(s.local())...)
	svc = s.provide(svc, corev1.LoadBalancerIPModeVIP, vip)
	families(func(f proxy.Family) { s.reaches(s.visitor(), tcp(in(f, vip), servicePort), s.local()) })
	s.provide(svc, corev1.LoadBalancerIPModeProxy, vip)
	families(func(f proxy.Family) {
		s.reaches(s.visitor(), tcp(in(f, vip), servicePort), s.World)
		s.reaches(s.visitor(), nodePort(svc, f), s.local())
	})
}

// protocolsAreTheirOwnServices: TCP, UDP and SCTP on the same port number, one by one.
func protocolsAreTheirOwnServices(s *story) {
	svc := s.service("web", func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeNodePort
		svc.Spec.Ports = []corev1.ServicePort{
			{Name: "udp", Port: servicePort, Protocol: corev1.ProtocolUDP},
			{Name: "sctp", Port: servicePort, Protocol: corev1.ProtocolSCTP},
		}
	})
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) {
		to := clusterIP(svc, f)
		for _, from := range s.everyone() {
			s.reaches(from, to.over(proxy.UDP), s.local(), s.remote())
			s.reaches(from, to.over(proxy.SCTP), s.local(), s.remote())
			s.ends(from, to.over(proxy.TCP), lab.Refused)
		}
		s.reaches(s.Client, nodePort(svc, f).over(proxy.UDP), s.local(), s.remote())
		sctp := tcp(lab.In(f, lab.NodeIP), svc.Spec.Ports[1].NodePort).over(proxy.SCTP)
		s.reaches(s.Client, sctp, s.local(), s.remote())
	})
	svc = s.update(svc, func(svc *corev1.Service) {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "tcp", Port: servicePort, Protocol: corev1.ProtocolTCP})
	})
	s.endpoints(svc, ready(s.local())...)
	families(func(f proxy.Family) {
		for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP, proxy.SCTP} {
			s.reaches(s.Client, clusterIP(svc, f).over(p), s.local())
		}
	})
}

// servicesOfOthersAreLeftAlone: headless and ExternalName Services, and those that name another proxy.
func servicesOfOthersAreLeftAlone(s *story) {
	headless := s.service("headless", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone })
	s.endpoints(headless, ready(s.local())...)
	s.service("alias", func(svc *corev1.Service) {
		svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.org"}
	})
	svc := s.service("web")
	s.endpoints(svc, ready(s.local())...)
	families(func(f proxy.Family) { s.reaches(s.visitor(), clusterIP(svc, f), s.local()) })
	families(func(f proxy.Family) {
		for _, name := range []string{"headless", "alias"} {
			s.unmentioned(f, s.namespace+"/"+name)
		}
	})

	const label = "service.kubernetes.io/service-proxy-name"
	s.update(svc, func(svc *corev1.Service) { svc.Labels = map[string]string{label: "another"} })
	families(func(f proxy.Family) { s.unserved(s.visitor(), clusterIP(svc, f)) })
	s.update(svc, func(svc *corev1.Service) { svc.Labels = nil })
	families(func(f proxy.Family) { s.reaches(s.visitor(), clusterIP(svc, f), s.local()) })

	s.update(svc, func(svc *corev1.Service) {
		svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.org"}
	})
	families(func(f proxy.Family) { s.unserved(s.visitor(), clusterIP(svc, f)) })
}

func singleFamilyServicesServeOne(s *story) {
	single := corev1.IPFamilyPolicySingleStack
	families(func(f proxy.Family) {
		svc := s.service("only-"+strings.ToLower(f.String()), func(svc *corev1.Service) {
			svc.Spec.IPFamilyPolicy = &single
			svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPFamily(f.String())}
			svc.Spec.Type = corev1.ServiceTypeNodePort
		})
		s.endpoints(svc, ready(s.local(), s.remote())...)
		s.reaches(s.visitor(), clusterIP(svc, f), s.local(), s.remote())
		s.reaches(s.Client, nodePort(svc, f), s.local(), s.remote())
		s.unserved(s.Client, nodePort(svc, other(f)))
	})
}
