package desired

import (
	"cmp"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// claims knows which Service owns each frontend. Only frontends that several Services claim cost more
// than one map entry.
type claims struct {
	owners map[proxy.FrontendKey]claim
	losers map[proxy.FrontendKey][]claim
}

// claim is a Service's wish to own a frontend.
type claim struct {
	service *service
	kind    proxy.FrontendKind
}

func newClaims() claims {
	return claims{
		owners: map[proxy.FrontendKey]claim{},
		losers: map[proxy.FrontendKey][]claim{},
	}
}

// before tells whether c wins over o: a ClusterIP over everything else, so that nobody takes one by
// naming it as an external IP; then the older Service, so that a newcomer cuts nobody off; then the
// order of names.
func (c claim) before(o claim) bool {
	a, b := c.service, o.service
	return cmp.Or(
		cmp.Compare(min(c.kind, proxy.ClusterIP+1), min(o.kind, proxy.ClusterIP+1)),
		a.created.Compare(b.created),
		cmp.Compare(a.input.Name.Namespace, b.input.Name.Namespace),
		cmp.Compare(a.input.Name.Name, b.input.Name.Name),
	) < 0
}

// claim enters the frontends of s and notes in dirty the services that lose one to it.
func (c *claims) claim(s *service, ports []*proxy.ServicePort, dirty map[*service]bool) {
	for _, port := range ports {
		for _, f := range port.Frontends {
			key, mine := keyOf(port, f), claim{s, f.Kind}
			owner, taken := c.owners[key]
			switch {
			case !taken:
				c.owners[key] = mine
			case mine.before(owner):
				c.owners[key] = mine
				c.losers[key] = append(c.losers[key], owner)
				dirty[owner.service] = true
			default:
				c.losers[key] = append(c.losers[key], mine)
			}
		}
	}
}

// release withdraws the frontends of s and notes in dirty the services that inherit one.
func (c *claims) release(s *service, ports []*proxy.ServicePort, dirty map[*service]bool) {
	for _, port := range ports {
		for _, f := range port.Frontends {
			key := keyOf(port, f)
			losers, contested := c.losers[key]
			switch {
			case !contested:
				delete(c.owners, key)
			case c.owners[key].service == s:
				heir := first(losers)
				c.owners[key] = losers[heir]
				dirty[losers[heir].service] = true
				c.setLosers(key, slices.Delete(losers, heir, heir+1))
			default:
				c.setLosers(key, slices.DeleteFunc(losers, func(l claim) bool { return l.service == s }))
			}
		}
	}
}

func (c *claims) setLosers(key proxy.FrontendKey, losers []claim) {
	if len(losers) == 0 {
		delete(c.losers, key)
		return
	}
	c.losers[key] = losers
}

// first is the position of the claim that wins over all others.
func first(list []claim) int {
	best := 0
	for i := range list {
		if list[i].before(list[best]) {
			best = i
		}
	}
	return best
}

// owned is the part of a port of s that others left to it: port itself if that is all of it, nil if
// no frontend is left.
func (c *claims) owned(s *service, port *proxy.ServicePort) *proxy.ServicePort {
	if len(c.losers) == 0 {
		return port
	}
	lost := func(f proxy.Frontend) bool { return c.owners[keyOf(port, f)].service != s }
	if !slices.ContainsFunc(port.Frontends, lost) {
		return port
	}
	frontends := slices.DeleteFunc(slices.Clone(port.Frontends), lost)
	if len(frontends) == 0 {
		return nil
	}
	part := *port
	part.Frontends = frontends
	if !uses(frontends, proxy.ClusterPool) {
		part.Cluster = nil
	}
	if !uses(frontends, proxy.LocalPool) {
		part.Local = nil
	}
	return &part
}

func uses(frontends []proxy.Frontend, pool proxy.Pool) bool {
	return slices.ContainsFunc(frontends, func(f proxy.Frontend) bool { return f.Routes.Uses(pool) })
}

// sameClaims tells whether two lists of ports claim the same frontends in the same kinds.
func sameClaims(a, b []*proxy.ServicePort) bool {
	return slices.EqualFunc(a, b, func(p, q *proxy.ServicePort) bool {
		return p == q || p.Name == q.Name &&
			slices.EqualFunc(p.Frontends, q.Frontends, func(f, g proxy.Frontend) bool {
				return f.Kind == g.Kind && f.Addr == g.Addr
			})
	})
}

func keyOf(port *proxy.ServicePort, f proxy.Frontend) proxy.FrontendKey {
	return proxy.FrontendKey{Addr: f.Addr, Protocol: port.Name.Protocol}
}
