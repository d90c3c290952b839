package proxytest

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-proxy/sluice/proxy"
)

func externalScenarios() []Scenario {
	return []Scenario{
		{
			Name:  "external IPs are served wherever they are",
			Rules: []string{"R50", "R51", "R52", "R55", "R124"},
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80, externalIPs("203.0.113.10", "203.0.113.11", " ", "not-an-address")), both("web")),
					Packets: `
						client -> 203.0.113.10:80: pod-a remote-a, masq
						client -> 203.0.113.11:80: pod-a remote-a, masq
						pod-b  -> 203.0.113.10:80: pod-a remote-a, masq
						pod-a  -> 203.0.113.11:80: pod-a remote-a, masq
						node   -> 203.0.113.10:80: pod-a remote-a, masq
						remote-b -> 203.0.113.10:80: pod-a remote-a, masq
						client -> 203.0.113.10:79: reset   # by the world
						client -> 203.0.113.12:80: unhandled
					`,
				},
				{
					Name: "one is taken away, one is new",
					Set:  set(service("web", "10.96.0.10", tcp80, externalIPs("203.0.113.12", "203.0.113.11"))),
					Packets: `
						client -> 203.0.113.10:80: unhandled
						client -> 203.0.113.11:80: pod-a remote-a, masq
						client -> 203.0.113.12:80: pod-a remote-a, masq
					`,
				},
			},
		},
		{
			Name:  "an external IP of the node takes one port of it",
			Rules: []string{"R54"},
			Steps: []Step{{
				Set: set(
					service("web", "10.96.0.10", tcp80, externalIPs("192.168.50.2")), both("web"),
					service("db", "10.96.0.11", port("", proxy.TCP, 81, 0), externalIPs("203.0.113.10")), both("db")),
				Packets: `
					client -> 192.168.50.2:80: pod-a remote-a, masq
					client -> 192.168.50.2:81: unhandled
					client -> 192.168.50.1:80: unhandled
					pod-b  -> 192.168.50.2:80: pod-a remote-a, masq
					node   -> 192.168.50.2:80: pod-a remote-a, masq
					node   -> 192.168.50.2:81: unhandled
				`,
			}},
		},
		{
			Name:          "external IPs can be switched off",
			Rules:         []string{"R50"},
			NoExternalIPs: true,
			Steps: []Step{{
				Set: set(service("web", "10.96.0.10", tcp80, externalIPs("203.0.113.10")), both("web")),
				Packets: `
					client -> 203.0.113.10:80: unhandled
					node   -> 203.0.113.10:80: unhandled
					pod-b  -> 10.96.0.10:80: pod-a remote-a
				`,
			}},
		},
		{
			Name:  "load-balancer IPs are served by mode",
			Rules: []string{"R60", "R61", "R63", "R70"},
			Steps: []Step{{
				Set: set(
					service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"),
						ingress("198.51.100.11", corev1.LoadBalancerIPModeVIP), ingress("198.51.100.12", corev1.LoadBalancerIPModeProxy),
						func(s *corev1.Service) {
							class := "example.com/balancer"
							s.Spec.LoadBalancerClass = &class
							s.Spec.LoadBalancerIP = "198.51.100.13"
							s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{Hostname: "lb.example.com"})
						}), both("web"),
					service("empty", "10.96.0.11", tcp80, ingress("198.51.100.22", corev1.LoadBalancerIPModeProxy), sourceRanges("10.0.0.0/8"))),
				Packets: `
					client -> 198.51.100.10:80: pod-a remote-a, masq
					client -> 198.51.100.11:80: pod-a remote-a, masq
					pod-b  -> 198.51.100.10:80: pod-a remote-a, masq
					pod-b  -> 198.51.100.11:80: pod-a remote-a, masq
					node   -> 198.51.100.11:80: pod-a remote-a, masq
					client -> 198.51.100.12:80: unhandled
					pod-b  -> 198.51.100.12:80: unhandled
					node   -> 198.51.100.12:80: unhandled
					client -> 198.51.100.13:80: unhandled
					client -> 198.51.100.22:80: unhandled
					client -> 192.168.50.1:30080: pod-a remote-a, masq
				`,
			}},
		},
		{
			Name:  "a load-balancer IP may come and go, without a nodePort",
			Rules: []string{"R13", "R15", "R62", "R71", "R72"},
			Steps: []Step{
				{
					Set:     set(service("web", "10.96.0.10", tcp80, loadBalancer()), both("web")),
					Packets: `client -> 198.51.100.10:80: unhandled`,
				},
				{
					Name: "only the status changes",
					Set:  set(service("web", "10.96.0.10", tcp80, loadBalancer("198.51.100.10", "198.51.100.11"))),
					Packets: `
						client -> 198.51.100.10:80: pod-a remote-a, masq
						client -> 198.51.100.11:80: pod-a remote-a, masq
					`,
				},
				{
					Name: "the status outlives the type",
					Set: set(service("web", "10.96.0.10", tcp80, loadBalancer("198.51.100.10"),
						func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })),
					Packets: `
						client -> 198.51.100.10:80: pod-a remote-a, masq
						client -> 198.51.100.11:80: unhandled
					`,
				},
			},
		},
		{
			Name:     "every trace of a load balancer goes with it",
			Rules:    []string{"R12", "R15", "R16", "R133"},
			Firewall: true,
			Steps: []Step{
				{
					Set: set(service("web", "10.96.0.10", tcp80At(30080), loadBalancer("198.51.100.10"), externalLocal, healthPort(32100),
						externalIPs("203.0.113.10"), sourceRanges("192.168.50.0/24")), slice("web", ready("pod-a"))),
					Packets: `
						client -> 192.168.50.1:32100: unhandled   # the health check port is open
						client -> 192.168.50.1:32101: dropped
					`,
				},
				{
					Name: "without local endpoints the health check port stays open",
					Set:  set(slice("web", ready("remote-a"))),
					Packets: `
						client -> 192.168.50.1:32100: unhandled
						client -> 192.168.50.1:30080: dropped
					`,
				},
				{
					Name: "it becomes a ClusterIP Service",
					Set:  set(service("web", "10.96.0.10", tcp80)),
					Packets: `
						client -> 192.168.50.1:32100: dropped
						client -> 192.168.50.1:30080: dropped
						node   -> 198.51.100.10:80: unhandled
						node   -> 203.0.113.10:80: unhandled
						node   -> 10.96.0.10:80: remote-a, masq
					`,
				},
			},
		},
	}
}
