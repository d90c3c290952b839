package ipvs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// inspection says what would be mended, in the words of the tools.
type inspection struct {
	nft.Damage
	held     *held
	state    *nft.State
	servers  *serversRead
	sentinel kernel.ID
}

// knowsMarks tells whether the table says which marks virtual servers have. Otherwise they would get new ones.
func (i *inspection) knowsMarks() bool { return i.state != nil && i.state.Fits }

// table compares chains, and names the elements that would be edited.
func (i *inspection) table(edits []nft.Edit) {
	if i.state == nil {
		i.Add(proxy.Missing, "table "+Table, "", "")
		return
	}
	want := i.held.writer.fixed(true)
	if !i.state.Fits {
		// The table would be replaced with all that is in it. What is wrong with a chain counts once.
		i.List = append(i.List, i.state.Unlike...)
		i.Chains(i.state, slices.DeleteFunc(want, func(c nft.Chain) bool {
			return slices.ContainsFunc(i.state.Unlike, func(x proxy.Difference) bool { return x.Object == "chain "+c.Name })
		}))
		return
	}
	if i.state.Asleep {
		i.Add(proxy.Altered, "table "+Table, "it is dormant", "")
	}
	i.Chains(i.state, want)
	for _, name := range strangers(i.state, want) {
		i.Add(proxy.Foreign, "chain "+name, "", "")
	}
	leaving := i.leaving()
	found := schema.Contents(i.state)
	var left []nft.Edit
	for _, x := range edits {
		if x.New == nil {
			if leaving[x.Place] {
				continue
			}
			if c := found[x.Place]; c != nil {
				x.Old = c // whose it is
			}
		}
		left = append(left, x)
	}
	i.Edits(left)
}

// strangers are the chains that nobody wants.
func strangers(found *nft.State, want []nft.Chain) []string {
	var names []string
	for name := range found.Chains {
		if !slices.ContainsFunc(want, func(c nft.Chain) bool { return c.Name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// leaving are the places of virtual servers that would be removed, and that stay for a while as a rule: see drained.
func (i *inspection) leaving() map[nft.Place]bool {
	places := map[nft.Place]bool{}
	for _, c := range i.servers.commands {
		if id := c.Server.ID; c.Op == kernel.DeleteServer && i.drained(id) {
			places[ownPlace(id)] = true
			if id.Mark == 0 {
				places[frontends.at(frontendKey(id))] = true
			}
		}
	}
	return places
}

// drained tells whether a virtual server that nobody wants has only backends without weight: their connections have ended, and it
// goes when that is seen.
func (i *inspection) drained(id kernel.ID) bool {
	loads := i.servers.loads[id]
	return len(loads) > 0 && !slices.ContainsFunc(loads, func(l kernel.Load) bool { return l.Weight > 0 })
}

// virtualServers names the virtual servers and backends that would be changed.
func (i *inspection) virtualServers(refused []shelf.Offence) {
	created := map[kernel.ID]bool{}
	for _, c := range i.servers.commands {
		id := c.Server.ID
		if id.Mark != 0 && id != i.sentinel && !i.knowsMarks() {
			continue
		}
		switch c.Op {
		case kernel.AddServer:
			created[id] = true
			i.server(proxy.Missing, id, "")
		case kernel.SetServer:
			i.server(proxy.Altered, id, unlike(i.servers.found[id], c.Server))
		case kernel.DeleteServer:
			if !i.drained(id) {
				i.server(proxy.Foreign, id, "")
			}
		case kernel.AddDest:
			if !created[id] {
				i.backend(proxy.Missing, id, c.Dest.Addr, "")
			}
		case kernel.SetDest:
			i.weight(id, c.Dest)
		case kernel.DeleteDest:
			i.backend(proxy.Foreign, id, c.Dest.Addr, "")
		}
	}
	for _, o := range refused {
		i.Add(proxy.Missing, "virtual servers of "+o.Port.Name.String(), o.Err.Error(), o.Port.Name.String())
	}
}

// What may be wrong with a backend beside its weight.
const (
	newConnections = "it gets new connections"
	otherSettings  = "another way to forward, or a limit of connections"
)

// weight names a backend whose weight, or another setting, is not what it should be.
func (i *inspection) weight(id kernel.ID, want kernel.Dest) {
	loads := i.servers.loads[id]
	n := slices.IndexFunc(loads, func(l kernel.Load) bool { return l.Addr == want.Addr })
	switch {
	case want.Weight == 0:
		i.backend(proxy.Foreign, id, want.Addr, newConnections)
	case n >= 0 && loads[n].Weight != want.Weight:
		i.backend(proxy.Altered, id, want.Addr, fmt.Sprintf("weight %d instead of %d", loads[n].Weight, want.Weight))
	default:
		i.backend(proxy.Altered, id, want.Addr, otherSettings)
	}
}

func (i *inspection) server(kind proxy.DifferenceKind, id kernel.ID, detail string) {
	i.Add(kind, fmt.Sprintf("virtual server %v", id), detail, i.ownerOf(id))
}

func (i *inspection) backend(kind proxy.DifferenceKind, id kernel.ID, addr netip.AddrPort, detail string) {
	i.Add(kind, fmt.Sprintf("virtual server %v backend %v", id, addr), detail, i.ownerOf(id))
}

// ownerOf is empty for the sentinel, and for what nobody wants.
func (i *inspection) ownerOf(id kernel.ID) string {
	if s := i.held.servers[id]; s != nil && s.owner != (proxy.ServicePortName{}) {
		return s.owner.String()
	}
	return ""
}

// unlike says how a virtual server differs from what it should be.
func unlike(is, want kernel.Server) string {
	var texts []string
	note := func(what string, is, want any) {
		if is != want {
			texts = append(texts, fmt.Sprintf("%s %v instead of %v", what, is, want))
		}
	}
	note("scheduler", is.Scheduler, want.Scheduler)
	note("timeout of persistence", is.Timeout, want.Timeout)
	note("fallback", is.Fallback, want.Fallback)
	if is.Altered {
		texts = append(texts, "flags or a netmask that are not ours")
	}
	return strings.Join(texts, ", ")
}
