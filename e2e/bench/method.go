package main

import (
	"fmt"
	"strings"
)

// method says how the figures came about, a line each.
func (c config) method() string {
	if c.Asked {
		return c.methodOfAnswers()
	}
	lines := []string{
		"A real etcd and kube-apiserver serve both proxies the same objects: Services with one port, a ClusterIP that the API server chose and two endpoints " +
			"(every tenth Service has none; × 50 means fifty endpoints), and one LoadBalancer Service " + fmt.Sprintf("with %s ports on one address and two endpoints.", thousands(c.SharedPorts)),
		"Each proxy, with each backend and number of services, runs on a node of its own: a fresh network namespace with a pod, linked to the API server. " +
			"Endpoints are pods on another node; one server answers for all of them and says at which address it was reached.",
		"Both run with default settings (least time between changes of rules: 1 s), but for `--conntrack-max-per-core=0`, which leaves `nf_conntrack_max` " +
			"alone. kube-proxy uses its " + c.Mode.name + " mode. " + c.Mode.note,
		"Start: from the start of the process, with all objects in the API server and no rules in the kernel, until connections from the pod " +
			"get answers through the first Service by name, the last, seven between them, and both ends of the shared address. " +
			"Before that: until the node itself can connect to the ClusterIP of default/kubernetes. kube-proxy makes all its rules visible at once, so that its own order, which is random, does not matter.",
		fmt.Sprintf("One change: from sending the API write that replaces one of a Service's endpoints until a connection through it arrives at the new one. "+
			"A connection is tried each millisecond; those that go to other endpoints do not count: with fifty endpoints that is most of the time. %d changes, each of another Service, %v apart, so that the p99 is the slowest.",
			c.Changes, c.Pause),
		"CPU: user and system time of the proxy and its children (`/proc/PID/stat`), until 1.5 s pass with less than 5 % of a CPU: of the changes above; " + c.work(),
		fmt.Sprintf("Repair: after `%s` on the node, until all the addresses of the start answer again; – if they do not within %v.", c.Mode.loss, repairLimit),
		"Memory: VmHWM of the proxy after all that; of its children the greatest VmHWM seen when looking every 20 ms.",
		fmt.Sprintf("connect(): %s blocking calls from the pod to each target, after the proxy has ended and left its rules, in turns of %d with the base line: "+
			"a second node, alike, with connection tracking and a single DNAT rule. The ratio is the median of the turns' ratios of medians. First and last are meant by the order of rules: "+
			"for kube-proxy's iptables mode that of KUBE-SERVICES, else that of addresses.", thousands(c.Connects), burst),
	}
	return items(lines)
}

func items(lines []string) string { return "- " + strings.Join(lines, "\n- ") + "\n" }

// work is what else CPU time is counted of.
func (c config) work() string {
	if c.Mode.slow {
		return fmt.Sprintf("and of %v in which nothing happens.", c.Idle)
	}
	return fmt.Sprintf("of %d, %v a second; and of %v a second for %v.", c.Batch, c.BatchRate, c.ChurnRate, c.Churn)
}
