package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// Candidate is an endpoint that a Service's EndpointSlices name, and what the node makes of it for one port of the Service.
type Candidate struct {
	// Addr has port 0 if the endpoint's slice has no port of that name and protocol.
	Addr     netip.AddrPort
	NodeName string // empty: unknown

	// Pools tells, by proxy.Pool, whether the endpoint is in it, and why.
	Pools [2]Judgement
}

// Judgement is whether an endpoint is used, and a reason in words.
type Judgement struct {
	Used bool   `json:"used"`
	Why  string `json:"why"`
}

// Candidates lists every endpoint of the node's family that the slices of a Service name, once for each time that it is named,
// sorted by address. It agrees with what Resolve makes of the same arguments.
func Candidates(in Input, name string, protocol proxy.Protocol, node *proxy.Node) []Candidate {
	port := Port{Name: name, Protocol: protocol}
	index := newIndex(in.Slices, node.Family)
	verdicts := newVerdicts(index.at(port), node)
	list := make([]Candidate, 0, len(index.members))
	for _, m := range index.members {
		c := candidate{m.endpoint, netip.AddrPortFrom(m.endpoint.Addr, index.number(port, m.slice))}
		list = append(list, Candidate{
			Addr:     c.addr,
			NodeName: c.NodeName,
			Pools: [2]Judgement{
				proxy.ClusterPool: verdicts.judge(c, proxy.ClusterPool),
				proxy.LocalPool:   verdicts.judge(c, proxy.LocalPool),
			},
		})
	}
	slices.SortStableFunc(list, func(a, b Candidate) int { return a.Addr.Compare(b.Addr) })
	return list
}

// number is the port's number in a slice; 0 if the slice does not have it.
func (x *index) number(port Port, slice int) uint16 {
	if numbers := x.numbers[portKey{port.Name, port.Protocol}]; numbers != nil {
		return numbers[slice]
	}
	return 0
}

// verdicts is a choice that can be asked about each candidate.
type verdicts struct {
	counted map[candidate]bool // those that no other at the same address overrules
	pools   [2]map[candidate]bool
	node    *proxy.Node
}

func newVerdicts(all []candidate, node *proxy.Node) verdicts {
	chosen := choose(all, node)
	return verdicts{
		counted: setOf(all),
		pools:   [2]map[candidate]bool{proxy.ClusterPool: setOf(chosen.cluster), proxy.LocalPool: setOf(chosen.local)},
		node:    node,
	}
}

func setOf(list []candidate) map[candidate]bool {
	set := make(map[candidate]bool, len(list))
	for _, c := range list {
		set[c] = true
	}
	return set
}

// judge says whether a pool has the candidate, and why.
func (v verdicts) judge(c candidate, pool proxy.Pool) Judgement {
	used := v.pools[pool][c]
	return Judgement{used, v.why(c, pool, used)}
}

func (v verdicts) why(c candidate, pool proxy.Pool, used bool) string {
	switch {
	case c.addr.Port() == 0:
		return "its slice has no such port"
	case !v.counted[c]:
		return "another slice names the same address, and that one counts"
	case pool == proxy.LocalPool && !c.on(v.node):
		return notHere(c.NodeName)
	case used && c.Ready:
		return "ready"
	case used:
		return "terminating, but serving, and none is ready"
	case c.Ready:
		return reserved(c.Endpoint)
	case c.draining() && len(v.pools[pool]) > 0:
		return "terminating, and others are ready"
	case c.Terminating:
		return "terminating, and no longer serving"
	}
	return "not ready"
}

func notHere(node string) string {
	if node == "" {
		return "not known to be on this node"
	}
	return "on node " + node
}

// reserved says for whom hints keep an endpoint that is ready and not used.
func reserved(e *Endpoint) string {
	if len(e.Nodes) > 0 && len(e.Zones) > 0 {
		return fmt.Sprintf("ready, but hints reserve it for nodes %s, zones %s", strings.Join(e.Nodes, ", "), strings.Join(e.Zones, ", "))
	}
	if len(e.Nodes) > 0 {
		return "ready, but hints reserve it for nodes " + strings.Join(e.Nodes, ", ")
	}
	return "ready, but hints reserve it for zones " + strings.Join(e.Zones, ", ")
}
