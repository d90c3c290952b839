package iptables

import (
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// entry is what a ServicePort adds to one of the trees.
type entry struct {
	index index
	key   string
	rules rules
}

// entries appends what sp adds to the trees. A nil ServicePort adds nothing.
func (r *renderer) entries(to []entry, sp *proxy.ServicePort) []entry {
	if sp == nil {
		return to
	}
	l := r.layout(sp)
	for i, f := range r.frontends(sp) {
		serve, refuse := indexesOf(f.Kind)
		add := func(in index, does rules) {
			to = append(to, entry{in, key(in, f.Addr.Addr(), sp.Name.Protocol, f.Addr.Port()), does})
		}
		about := comment(sp.Name.String() + " " + f.Kind.String())
		if l.entry[i] != "" {
			add(serve, r.service(sp, l, i, about))
		}
		if text := r.refusal(sp, f, about); text != "" {
			add(refuse, rules{text: text})
		}
		if f.Kind == proxy.ClusterIP {
			add(byKnown, rules{text: "-j REJECT"})
		}
	}
	if sp.HealthCheckNodePort != 0 {
		health := key(byHealthPort, r.family.Any(), proxy.TCP, sp.HealthCheckNodePort)
		to = append(to, entry{byHealthPort, health, rules{text: "-j ACCEPT"}})
	}
	return to
}

// service is what nat does with packets to the i-th frontend of sp: choose a backend at once, or go on to a chain.
func (r *renderer) service(sp *proxy.ServicePort, l layout, i int, about string) rules {
	does := rules{text: about + " -j " + l.entry[i], closed: r.closed(r.frontends(sp)[i])}
	g := l.groupOf(i)
	if g == nil {
		return does
	}
	if first := g.steps[0]; first.action == masquerade {
		does.mark, does.marked = join(first.match, r.mark), true
	}
	if g.direct {
		b := newBalancer(sp, g.pool())
		does.text, does.marked = about+" "+strings.Join(b.picks(), "\n"), false
	}
	return does
}

// closed is how many nibbles of a frontend's key say that it is in a ServiceCIDR, of which we refuse what is not
// translated; 0 if it is in none.
func (r *renderer) closed(f proxy.Frontend) int {
	if f.Kind != proxy.ClusterIP {
		return 0
	}
	for _, p := range r.serviceCIDRs {
		if p.Contains(f.Addr.Addr()) {
			return (p.Bits() + 3) / 4
		}
	}
	return 0
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
