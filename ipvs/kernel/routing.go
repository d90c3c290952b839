package kernel

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// Where our rules and routes are. Nothing else is looked at or touched.
const (
	// deliverTable makes every packet one for this machine.
	deliverTable = 21338

	// lastTable routes packets of the node to Services, if no other table has a route.
	lastTable = 21339

	// Before all rules but that of local addresses.
	reversePriority = 7
	deliverPriority = 8

	// After the rules of tables main and default.
	lastPriority = 32800
)

// protocolKernel marks rules and routes as ours in that systemd-networkd leaves them alone: it removes those of
// others, but for the kernel's.
const protocolKernel = unix.RTPROT_KERNEL

// Routes is what the rules and routes of a family should do.
type Routes struct {
	// Mark is the bit that packets carry which are to be delivered to this machine.
	Mark uint32

	// Source is the address that the node speaks from to them; if it is invalid, the kernel chooses.
	Source netip.Addr

	// Last are ranges that the node reaches even without a route, and Addrs are addresses. Neither changes any more.
	Last  []netip.Prefix
	Addrs map[netip.Addr]bool
}

// Equal tells whether both are the same.
func (r Routes) Equal(o Routes) bool { return r.sameBut(o) && maps.Equal(r.Addrs, o.Addrs) }

// sameBut tells whether both are the same but for addresses.
func (r Routes) sameBut(o Routes) bool {
	return r.Mark == o.Mark && r.Source == o.Source && slices.Equal(r.Last, o.Last)
}

// without is r with those of its addresses that o does not have.
func (r Routes) without(o Routes) Routes {
	r.Addrs = maps.Clone(r.Addrs)
	maps.DeleteFunc(r.Addrs, func(a netip.Addr, _ bool) bool { return o.Addrs[a] })
	return r
}

// Router is the rules and routes of one family, in the network namespace of the calling thread.
type Router struct{ family proxy.Family }

// NewRouter touches nothing.
func NewRouter(f proxy.Family) *Router { return &Router{f} }

// plan is what should be there.
type plan struct {
	rules  []netlink.Rule
	routes []netlink.Route
}

func (r *Router) number() int { return int(addressFamily(r.family)) }

func (r *Router) plan(want Routes, loopback int) plan {
	mask := want.Mark
	rule := func(priority, table int) netlink.Rule {
		x := netlink.NewRule()
		x.Family, x.Priority, x.Table, x.Protocol = r.number(), priority, table, protocolKernel
		return *x
	}
	// With src_valid_mark the kernel looks for the way back to a packet's source with the packet's mark, as if a packet
	// came from lo. It must not find that the source is this machine.
	reverse := rule(reversePriority, unix.RT_TABLE_MAIN)
	reverse.IifName, reverse.Mark, reverse.Mask = "lo", want.Mark, &mask
	deliver := rule(deliverPriority, deliverTable)
	deliver.Mark, deliver.Mask = want.Mark, &mask
	p := plan{
		rules: []netlink.Rule{reverse, deliver, rule(lastPriority, lastTable)},
		routes: []netlink.Route{{
			Family: r.number(), Table: deliverTable, LinkIndex: loopback, Dst: ipNet(netip.PrefixFrom(r.family.Any(), 0)),
			Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Protocol: protocolKernel,
		}},
	}
	for _, prefix := range want.Last {
		p.routes = append(p.routes, r.last(prefix, want.Source, loopback))
	}
	p.routes = append(p.routes, r.lastAddrs(want, loopback)...)
	return p
}

// lastAddrs are the routes to addresses.
func (r *Router) lastAddrs(want Routes, loopback int) []netlink.Route {
	var all []netlink.Route
	for a := range want.Addrs {
		all = append(all, r.last(netip.PrefixFrom(a, a.BitLen()), want.Source, loopback))
	}
	return all
}

// last is a route for packets that no other table has one for.
func (r *Router) last(to netip.Prefix, source netip.Addr, loopback int) netlink.Route {
	return netlink.Route{
		Family: r.number(), Table: lastTable, LinkIndex: loopback, Dst: ipNet(to), Src: source.AsSlice(),
		Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_UNIVERSE, Protocol: protocolKernel,
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
