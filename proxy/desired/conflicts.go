package desired

import (
	"cmp"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// Conflict is a frontend that several ServicePorts claim. Only the owner's answers on it.
type Conflict struct {
	Frontend proxy.FrontendKey
	Owner    proxy.ServicePortName
	Losers   []proxy.ServicePortName // sorted
}

// Conflicts lists the frontends that are contested now, sorted by address, port and protocol.
func (b *Builder) Conflicts() []Conflict {
	found := make(map[proxy.FrontendKey]*Conflict, len(b.claims.losers))
	for s := range b.claims.rivals() {
		b.claims.report(s, found)
	}
	list := make([]Conflict, 0, len(found))
	for _, c := range found {
		slices.SortFunc(c.Losers, proxy.ServicePortName.Compare)
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b Conflict) int {
		return cmp.Or(a.Frontend.Addr.Compare(b.Frontend.Addr), cmp.Compare(a.Frontend.Protocol, b.Frontend.Protocol))
	})
	return list
}

// rivals is the set of the services that claim a contested frontend.
func (c *claims) rivals() map[*service]bool {
	set := map[*service]bool{}
	for key, losers := range c.losers {
		set[c.owners[key].service] = true
		for _, l := range losers {
			set[l.service] = true
		}
	}
	return set
}

// report enters the ServicePorts of s into the conflicts that they are part of.
func (c *claims) report(s *service, found map[proxy.FrontendKey]*Conflict) {
	for _, port := range s.resolved {
		for _, f := range port.Frontends {
			key := keyOf(port, f)
			if len(c.losers[key]) == 0 {
				continue
			}
			if found[key] == nil {
				found[key] = &Conflict{Frontend: key}
			}
			if c.owners[key].service == s {
				found[key].Owner = port.Name
			} else {
				found[key].Losers = append(found[key].Losers, port.Name)
			}
		}
	}
}
