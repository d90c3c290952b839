package preflight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// modes says what each mode lacks. What matters is whether the wanted one works or, if the best is wanted, any.
func modes(f Facts, w Want) []Finding {
	var all []Finding
	for _, m := range f.Modes {
		subject := "mode " + m.Name
		lacks := m.Missing[proxy.IPv4]
		switch {
		case lacks != nil && m.Name == w.Mode:
			all = append(all, Finding{Problem, subject, fmt.Sprintf("cannot work here: %v", lacks), "install or load what is missing, or choose another mode"})
		case lacks != nil:
			all = append(all, Finding{OK, subject, fmt.Sprintf("not possible here, and not needed: %v", lacks), ""})
		default:
			all = append(all, Finding{OK, subject, "everything that it needs is there" + withoutIPv6(m), ""})
		}
	}
	if w.mode(f) == "" {
		all = append(all, Finding{Problem, "mode", "this node can run no mode", "install nftables or iptables"})
	}
	return all
}

func withoutIPv6(m Mode) string {
	if lacks := m.Missing[proxy.IPv6]; lacks != nil {
		return fmt.Sprintf(", for IPv4 alone: %v", lacks)
	}
	return ""
}

// sysctl is a setting that must, or should, have some value.
type sysctl struct {
	path  string
	bad   func(value, mode string, w Want) bool
	found Finding // with %s for the value
}

func is(value string) func(string, string, Want) bool {
	return func(v, _ string, _ Want) bool { return v == value }
}

var sysctlsWanted = []sysctl{
	{"net/ipv4/ip_forward", is("0"), Finding{Problem, "sysctl", "net.ipv4.ip_forward is %s: the kernel forwards nothing to pods on other nodes or in other namespaces", "set it to 1"}},
	{"net/ipv6/conf/all/forwarding", is("0"), Finding{Warning, "sysctl", "net.ipv6.conf.all.forwarding is %s: IPv6 Services reach no pods", "set it to 1 if the cluster has IPv6"}},
	{"net/bridge/bridge-nf-call-iptables", is("0"), Finding{
		Warning, "sysctl", "net.bridge.bridge-nf-call-iptables is %s: answers of a pod to another one on the same Linux bridge are not translated back", "set it to 1 if pods are on a Linux bridge",
	}},
	{"net/ipv4/conf/all/src_valid_mark", func(v, mode string, _ Want) bool { return v == "1" && mode == "ipvs" }, Finding{
		OK, "sysctl", "net.ipv4.conf.all.src_valid_mark is %s (WireGuard's tools set it): mode ipvs has a rule for that", "",
	}},
	{"net/ipv4/conf/all/route_localnet", func(v, mode string, w Want) bool {
		return v == "1" && (!w.Localhost || slices.Contains(w.Relays, mode))
	}, Finding{
		Warning, "sysctl", "net.ipv4.conf.all.route_localnet is %s and Sluice does not need it: neighbours may reach what listens on 127.0.0.1", "set it to 0 unless something else needs it",
	}},
	{"net/netfilter/nf_conntrack_tcp_be_liberal", func(v, _ string, w Want) bool { return v == "0" && w.BeLiberal }, Finding{
		OK, "sysctl", "net.netfilter.nf_conntrack_tcp_be_liberal is %s, and will be set to 1", "",
	}},
}

func sysctls(f Facts, w Want) []Finding {
	var all []Finding
	mode := w.mode(f)
	for _, s := range sysctlsWanted {
		if value, there := f.Sysctls[s.path]; there && s.bad(value, mode, w) {
			found := s.found
			found.Text = fmt.Sprintf(found.Text, value)
			all = append(all, found)
		}
	}
	return all
}

// connections looks at how full connection tracking is: a full table drops the first packet of every new connection.
func connections(f Facts, _ Want) []Finding {
	if f.TrackedMax == 0 {
		return nil
	}
	percent := 100 * f.Tracked / f.TrackedMax
	found := Finding{OK, "connection tracking", fmt.Sprintf("%d of %d connections, %d %%", f.Tracked, f.TrackedMax, percent), ""}
	switch {
	case percent >= 95:
		found.Severity = Problem
	case percent >= 80:
		found.Severity = Warning
	}
	if found.Severity != OK {
		found.Remedy = "raise --conntrack-max-per-core, and look for what opens the connections"
	}
	return []Finding{found}
}

// listeners finds programs of the host that a NodePort would cut off: traffic to its port goes to the Service. A service proxy
// answers load balancers itself at the health check node ports, which are of the same range.
func listeners(f Facts, w Want) []Finding {
	var taken []string
	for _, l := range f.Listeners {
		if w.NodePorts.Has(l.Port) && (!l.Loopback || w.Localhost) && !l.proxies() {
			taken = append(taken, l.String())
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return []Finding{{
		Warning, "NodePorts",
		fmt.Sprintf("programs of the host listen on ports from which NodePorts are taken (%d-%d); a Service with the same port would get their traffic: %s",
			w.NodePorts.First, w.NodePorts.Last, strings.Join(taken, ", ")),
		"move them, or restrict --nodeport-addresses",
	}}
}

func (l Listener) isSluice() bool { return strings.HasPrefix(l.Process, "sluice") }

func (l Listener) proxies() bool { return l.isSluice() || l.Process == "kube-proxy" }

// String is the listener as an administrator writes it.
func (l Listener) String() string {
	text := fmt.Sprintf("%v %s:%d", l.Protocol, or(l.Addr, "*"), l.Port)
	if l.Process != "" {
		text += " (" + l.Process + ")"
	}
	return text
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// servers finds out whether the ports of health and metrics are free.
func servers(f Facts, w Want) []Finding {
	var all []Finding
	for _, l := range f.Listeners {
		if l.Protocol != proxy.TCP || !slices.Contains(w.Ports, l.Port) {
			continue
		}
		if l.isSluice() {
			all = append(all, Finding{OK, "ports", fmt.Sprintf("Sluice is running: %v", l), ""})
			continue
		}
		all = append(all, Finding{Problem, "ports", fmt.Sprintf("a port of Sluice's health or metrics server is taken: %v", l), "stop what has it (usually kube-proxy), or choose another port"})
	}
	return all
}
