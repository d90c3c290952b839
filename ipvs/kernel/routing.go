package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

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

	// Last are ranges that the node reaches even without a route.
	Last []netip.Prefix
}

// Equal tells whether both are the same.
func (r Routes) Equal(o Routes) bool {
	if r.Mark != o.Mark || r.Source != o.Source || len(r.Last) != len(o.Last) {
		return false
	}
	for i := range r.Last {
		if r.Last[i] != o.Last[i] {
			return false
		}
	}
	return true
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
		rules: []netlink.Rule{reverse, deliver},
		routes: []netlink.Route{{
			Family: r.number(), Table: deliverTable, LinkIndex: loopback, Dst: ipNet(netip.PrefixFrom(r.family.Any(), 0)),
			Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Protocol: protocolKernel,
		}},
	}
	if len(want.Last) == 0 {
		return p
	}
	p.rules = append(p.rules, rule(lastPriority, lastTable))
	for _, prefix := range want.Last {
		p.routes = append(p.routes, netlink.Route{
			Family: r.number(), Table: lastTable, LinkIndex: loopback, Dst: ipNet(prefix), Src: want.Source.AsSlice(),
			Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_UNIVERSE, Protocol: protocolKernel,
		})
	}
	return p
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// open gives a handle that no longer than the timeout waits for anything.
func open() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := h.SetSocketTimeout(timeout); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// found is what is there of ours.
type found struct {
	rules  []netlink.Rule
	routes []netlink.Route
}

func (r *Router) find(h *netlink.Handle) (found, error) {
	var f found
	rules, err := h.RuleList(r.number())
	if err != nil {
		return f, err
	}
	for _, x := range rules {
		ours := x.Priority == lastPriority && x.Table == lastTable ||
			x.Priority == deliverPriority && x.Table == deliverTable ||
			x.Priority == reversePriority && x.Table == unix.RT_TABLE_MAIN && x.IifName == "lo"
		if ours && x.Protocol == protocolKernel {
			f.rules = append(f.rules, x)
		}
	}
	for _, table := range []int{deliverTable, lastTable} {
		routes, err := h.RouteListFiltered(r.number(), &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return f, err
		}
		for _, x := range routes {
			if x.Protocol == protocolKernel {
				f.routes = append(f.routes, x)
			}
		}
	}
	return f, nil
}

// compare gives what is missing and what is too much.
func (p plan) compare(f found) (missing, obsolete found) {
	missing.rules, obsolete.rules = differ(p.rules, f.rules, sameRule)
	missing.routes, obsolete.routes = differ(p.routes, f.routes, sameRoute)
	return missing, obsolete
}

func differ[T any](want, have []T, same func(a, b T) bool) (missing, obsolete []T) {
	has := func(list []T, x T) bool {
		for _, y := range list {
			if same(x, y) {
				return true
			}
		}
		return false
	}
	for _, x := range want {
		if !has(have, x) {
			missing = append(missing, x)
		}
	}
	for _, x := range have {
		if !has(want, x) {
			obsolete = append(obsolete, x)
		}
	}
	return missing, obsolete
}

func sameRule(a, b netlink.Rule) bool {
	mask := func(r netlink.Rule) uint32 {
		if r.Mask == nil {
			return 0
		}
		return *r.Mask
	}
	return a.Priority == b.Priority && a.Table == b.Table && a.Mark == b.Mark && mask(a) == mask(b) && a.IifName == b.IifName
}

func sameRoute(a, b netlink.Route) bool {
	source := a.Src == nil || b.Src == nil || a.Src.Equal(b.Src) // see add
	return a.Table == b.Table && a.LinkIndex == b.LinkIndex && a.Type == b.Type && destination(a) == destination(b) && source
}

// add adds a route. While an address is not yet usable, the kernel refuses a route that names it; it is left out then.
func add(h *netlink.Handle, route netlink.Route) error {
	err := h.RouteReplace(&route)
	if errors.Is(err, unix.EINVAL) && route.Src != nil {
		route.Src = nil
		err = h.RouteReplace(&route)
	}
	return err
}

// destination is the range of a route. The kernel names none for that of all addresses.
func destination(r netlink.Route) string {
	if r.Dst == nil {
		return "0"
	}
	if ones, _ := r.Dst.Mask.Size(); ones == 0 {
		return "0"
	}
	return r.Dst.String()
}

// Apply makes rules and routes what they should be, and tells how many it wrote: routes before the rules that lead to them.
func (r *Router) Apply(want Routes) (writes int, err error) {
	h, err := open()
	if err != nil {
		return 0, fmt.Errorf("set rules and routes: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return 0, fmt.Errorf("find lo: %w", err)
	}
	have, err := r.find(h)
	if err != nil {
		return 0, fmt.Errorf("list rules and routes: %w", err)
	}
	missing, obsolete := r.plan(want, lo.Attrs().Index).compare(have)
	for _, x := range missing.routes {
		if err := add(h, x); err != nil {
			return writes, fmt.Errorf("add route %v to table %d: %w", x.Dst, x.Table, err)
		}
		writes++
	}
	for _, x := range missing.rules {
		if err := h.RuleAdd(&x); err != nil && !errors.Is(err, unix.EEXIST) {
			return writes, fmt.Errorf("add rule %d: %w", x.Priority, err)
		}
		writes++
	}
	removed, err := remove(h, obsolete)
	return writes + removed, err
}

func (r *Router) missing(h *netlink.Handle, want Routes) (string, error) {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return "", err
	}
	have, err := r.find(h)
	if err != nil {
		return "", err
	}
	missing, _ := r.plan(want, lo.Attrs().Index).compare(have)
	switch {
	case len(missing.rules) > 0:
		return fmt.Sprintf("the rule of priority %d is gone", missing.rules[0].Priority), nil
	case len(missing.routes) > 0:
		return fmt.Sprintf("a route of table %d is gone", missing.routes[0].Table), nil
	}
	return "", nil
}

// Traces names all rules and routes that are ours.
func (r *Router) Traces() ([]string, error) {
	h, err := open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	have, err := r.find(h)
	if err != nil {
		return nil, fmt.Errorf("list rules and routes: %w", err)
	}
	var all []string
	for _, x := range have.rules {
		all = append(all, fmt.Sprintf("routing: %v, rule of priority %d", r.family, x.Priority))
	}
	for _, x := range have.routes {
		to := "everything"
		if d := destination(x); d != "0" {
			to = d
		}
		all = append(all, fmt.Sprintf("routing: %v, route to %s of table %d", r.family, to, x.Table))
	}
	return all, nil
}

// Remove removes all rules and routes that are ours.
func (r *Router) Remove() error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	have, err := r.find(h)
	if err != nil {
		return fmt.Errorf("list rules and routes: %w", err)
	}
	_, err = remove(h, have)
	return err
}

// remove deletes rules before the routes that they lead to. What is gone already is no error.
func remove(h *netlink.Handle, some found) (n int, err error) {
	for _, x := range some.rules {
		if err := h.RuleDel(&x); err != nil && !errors.Is(err, unix.ENOENT) {
			return n, fmt.Errorf("delete rule %d: %w", x.Priority, err)
		}
		n++
	}
	for _, x := range some.routes {
		if err := h.RouteDel(&x); err != nil && !errors.Is(err, unix.ESRCH) {
			return n, fmt.Errorf("delete route %v of table %d: %w", x.Dst, x.Table, err)
		}
		n++
	}
	return n, nil
}
