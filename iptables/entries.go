package iptables

import (
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// entry is what a ServicePort adds to one of the trees.
type entry struct {
	index      index
	key, rules string
}

// entries appends what sp adds to the trees. A nil ServicePort adds nothing.
func (r *renderer) entries(to []entry, sp *proxy.ServicePort) []entry {
	if sp == nil {
		return to
	}
	l := r.layout(sp)
	for i, f := range r.frontends(sp) {
		serve, refuse := indexesOf(f.Kind)
		add := func(in index, rules string) {
			to = append(to, entry{in, key(in, f.Addr.Addr(), sp.Name.Protocol, f.Addr.Port()), rules})
		}
		about := comment(sp.Name.String() + " " + f.Kind.String())
		if l.entry[i] != "" {
			add(serve, about+" -j "+l.entry[i])
		}
		if rules := r.refusal(sp, f, about); rules != "" {
			add(refuse, rules)
		}
		if f.Kind == proxy.ClusterIP {
			add(byKnown, "-j REJECT")
		}
	}
	if sp.HealthCheckNodePort != 0 {
		to = append(to, entry{byHealthPort, key(byHealthPort, r.family.Any(), proxy.TCP, sp.HealthCheckNodePort), "-j ACCEPT"})
	}
	return to
}

func indexesOf(k proxy.FrontendKind) (serve, refuse index) {
	switch k {
	case proxy.ClusterIP:
		return byClusterIP, byRefused
	case proxy.NodePort:
		return byNodePort, byRefusedPort
	}
	return byExternal, byRefused
}

// refusal is what filter does with packets to f that nat did not translate: the rules, empty for none.
func (r *renderer) refusal(sp *proxy.ServicePort, f proxy.Frontend, about string) string {
	routes := r.routes(sp, f)
	restricted := f.Allowed != nil
	drops := restricted && routes.Serves()
	for _, route := range routes {
		drops = drops || route.Verdict == proxy.Drop
	}
	switch {
	case drops:
		return about + " -j DROP"
	case restricted:
		var rules strings.Builder
		for _, p := range f.Allowed {
			rules.WriteString("-s " + p.String() + " " + about + " -j REJECT\n")
		}
		return rules.String() + about + " -j DROP"
	case routes.Refuses() && f.Kind != proxy.ClusterIP:
		return about + " -j REJECT"
	}
	// What is sent to a ClusterIP and not translated is rejected anyway: see byKnown.
	return ""
}
