package proxytest

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-proxy/sluice/proxy"
)

func affinityScenarios() []Scenario {
	sticky := func(parts ...func(*corev1.Service)) *corev1.Service {
		all := append([]func(*corev1.Service){tcp80At(30080), loadBalancer("198.51.100.10"), externalIPs("203.0.113.10")}, parts...)
		return service("sticky", "10.96.0.10", all...)
	}
	four := slice("sticky", ready("pod-a"), ready("pod-b"), ready("remote-a"), ready("remote-b"))
	const anyOfFour = `one of pod-a pod-b remote-a remote-b, masq`
	return []Scenario{
		{
			Name:  "a client keeps its backend across frontends and changes",
			Rules: []string{"R100", "R101", "R102", "R107", "R108"},
			Steps: []Step{
				{
					Set: set(sticky(affinity(10800)), four),
					Packets: `
						client -> 10.96.0.10:80 as c0: ` + anyOfFour + `
						client -> 10.96.0.10:80: like c0
						client -> 198.51.100.10:80: like c0
						client -> 203.0.113.10:80: like c0
						client -> 192.168.50.1:30080: like c0
						client@192.168.50.101 -> 192.168.50.2:30080 as c1: ` + anyOfFour + `
						client@192.168.50.101 -> 10.96.0.10:80: like c1
						client@192.168.50.102 -> 10.96.0.10:80: ` + anyOfFour + `
						client@192.168.50.103 -> 10.96.0.10:80: ` + anyOfFour + `
						pod-c  -> 10.96.0.10:80 as p: one of pod-a pod-b remote-a remote-b
						pod-c  -> 198.51.100.10:80: like p
						node   -> 10.96.0.10:80: ` + anyOfFour,
				},
				{
					Name: "the timeout changes",
					Set:  set(sticky(affinity(600))),
					Packets: `
						client -> 10.96.0.10:80: like c0
						client@192.168.50.101 -> 198.51.100.10:80: like c1
					`,
				},
				{
					Name:    "the process restarts",
					Restart: true,
					Packets: `
						client -> 10.96.0.10:80: like c0
						client@192.168.50.101 -> 198.51.100.10:80: like c1
						pod-c  -> 198.51.100.10:80: like p
					`,
				},
				{
					Name: "the backend of everybody goes",
					Set:  set(slice("sticky", ready("pod-c"))),
					Packets: `
						client -> 10.96.0.10:80: pod-c, masq
						client@192.168.50.101 -> 198.51.100.10:80: pod-c, masq
					`,
				},
				{
					Name: "the client stays where it moved to",
					Set:  set(slice("sticky", ready("pod-a"), ready("pod-b"), ready("pod-c"), ready("remote-a"), ready("remote-b"))),
					Packets: `
						client -> 10.96.0.10:80: pod-c, masq
						client -> 203.0.113.10:80: pod-c, masq
					`,
				},
				{
					Name: "affinity ends",
					Set:  set(sticky()),
					Packets: `
						client -> 10.96.0.10:80: pod-a pod-b pod-c remote-a remote-b, masq
						client -> 192.168.50.1:30080: pod-a pod-b pod-c remote-a remote-b, masq
					`,
				},
			},
		},
		{
			Name:  "affinity never reaches a backend that is gone",
			Rules: []string{"R105"},
			Steps: []Step{
				{
					Set: set(sticky(affinity(10800)), slice("sticky", ready("pod-a"))),
					Packets: `
						client -> 10.96.0.10:80: pod-a, masq
						pod-c  -> 10.96.0.10:80: pod-a
					`,
				},
				{
					Name: "replaced",
					Set:  set(slice("sticky", ready("pod-b"), ready("remote-a"))),
					Packets: `
						client -> 10.96.0.10:80: one of pod-b remote-a, masq
						pod-c  -> 203.0.113.10:80: one of pod-b remote-a, masq
					`,
				},
				{Name: "none", Set: set(slice("sticky")), Packets: `client -> 10.96.0.10:80: refused`},
				{Name: "back", Set: set(slice("sticky", ready("pod-a"))), Packets: `client -> 10.96.0.10:80: pod-a, masq`},
			},
		},
		{
			Name:  "connections talk on after their endpoint is gone, and their client moves all the same",
			Rules: []string{"R105", "R111"},
			Steps: []Step{
				{
					Set: set(sticky(affinity(10800)), slice("sticky", ready("pod-a"))),
					Packets: `
						client -> 10.96.0.10:80 as old: pod-a, masq
						pod-c  -> 10.96.0.10:80 as p: pod-a
					`,
				},
				{
					Name: "gone",
					Set:  set(slice("sticky", ready("pod-b"), ready("remote-a"))),
					Packets: `
						old again: same
						p again: same
						client -> 203.0.113.10:80 as new: one of pod-b remote-a, masq
						old again: same
						client -> 192.168.50.1:30080: like new
						old again: same
						client -> 10.96.0.10:80: like new
						p again: same
					`,
				},
				{
					Name: "back",
					Set:  set(slice("sticky", ready("pod-a"), ready("pod-b"), ready("remote-a"))),
					Packets: `
						old again: same
						client -> 10.96.0.10:80: like new
						new again: same
						p again: same
					`,
				},
			},
		},
		{
			Name:  "affinity does not override a policy",
			Rules: []string{"R84", "R106"},
			Steps: []Step{
				{
					Set: set(sticky(affinity(10800), externalLocal), slice("sticky", ready("remote-a"))),
					Packets: `
						client -> 10.96.0.10:80: remote-a, masq
						client -> 198.51.100.10:80: dropped
					`,
				},
				{
					Name: "a local endpoint appears",
					Set:  set(slice("sticky", ready("pod-a"), ready("remote-a"))),
					Packets: `
						client -> 198.51.100.10:80: pod-a
						client -> 192.168.50.1:30080: pod-a
					`,
				},
			},
		},
		{
			Name:  "UDP and SCTP clients keep their backends",
			Rules: []string{"R100", "R180", "R181"},
			Steps: []Step{{
				Set: set(
					service("sticky", "10.96.0.10", port("udp", proxy.UDP, 53, 30053), port("sctp", proxy.SCTP, 53, 30053), affinity(10800)),
					sliceOf("sticky", "sticky", []slicePort{{"udp", proxy.UDP, 8053}, {"sctp", proxy.SCTP, 8055}}, ready("pod-a"), ready("pod-b"), ready("remote-a"))),
				Packets: `
					client -> 10.96.0.10:53/udp as u: one of pod-a:8053 pod-b:8053 remote-a:8053, masq
					client -> 10.96.0.10:53/udp: like u
					client -> 192.168.50.1:30053/udp: like u
					client -> 10.96.0.10:53/sctp as s: one of pod-a:8055 pod-b:8055 remote-a:8055, masq
					client -> 192.168.50.1:30053/sctp: like s
					pod-a  -> 10.96.0.10:53/udp: one of pod-a:8053(masq) pod-b:8053 remote-a:8053
				`,
			}},
		},
		{
			Name:  "affinity is on for as many endpoints as there are",
			Rules: []string{"R102"},
			Steps: []Step{{
				Set: set(sticky(affinity(10800)), slice("sticky", crowd(60)...)),
				Packets: `
					client -> 10.96.0.10:80 as c: at least 1 of the crowd
					client -> 10.96.0.10:80: like c
					client -> 203.0.113.10:80: like c
					pod-c  -> 10.96.0.10:80 as p: at least 1 of the crowd
					pod-c  -> 192.168.50.1:30080: like p
				`,
			}},
		},
	}
}
