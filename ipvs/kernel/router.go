package kernel

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

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
	missing.rules, obsolete.rules = differ(p.rules, f.rules, func(r netlink.Rule) string { return strconv.Itoa(r.Priority) }, sameRule)
	missing.routes, obsolete.routes = differ(p.routes, f.routes, destination, sameRoute)
	return missing, obsolete
}

// differ gives what is in one list and not in the other. What is the same has the same key.
func differ[T any](want, have []T, key func(T) string, same func(a, b T) bool) (missing, obsolete []T) {
	return lacking(have, want, key, same), lacking(want, have, key, same)
}

// lacking are those of all that are not in list.
func lacking[T any](list, all []T, key func(T) string, same func(a, b T) bool) []T {
	byKey := make(map[string][]T, len(list))
	for _, x := range list {
		byKey[key(x)] = append(byKey[key(x)], x)
	}
	var lack []T
	for _, x := range all {
		if !slices.ContainsFunc(byKey[key(x)], func(y T) bool { return same(x, y) }) {
			lack = append(lack, x)
		}
	}
	return lack
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

// Apply makes rules and routes what they should be, and tells how many it wrote.
func (r *Router) Apply(want Routes) (writes int, err error) {
	h, err := open()
	if err != nil {
		return 0, fmt.Errorf("set rules and routes: %w", err)
	}
	defer h.Close()
	have, err := r.find(h)
	if err != nil {
		return 0, fmt.Errorf("list rules and routes: %w", err)
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		return 0, fmt.Errorf("find lo: %w", err)
	}
	return write(h, r.plan(want, lo.Attrs().Index), have)
}

// Change does the same where was is what is there. If the two differ in addresses only, it lists nothing.
func (r *Router) Change(was, want Routes) (writes int, err error) {
	if !was.sameBut(want) {
		return r.Apply(want)
	}
	h, err := open()
	if err != nil {
		return 0, fmt.Errorf("set routes: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return 0, fmt.Errorf("find lo: %w", err)
	}
	added, removed := plan{routes: r.lastAddrs(want.without(was), lo.Attrs().Index)}, found{routes: r.lastAddrs(was.without(want), lo.Attrs().Index)}
	return write(h, added, removed)
}

// write makes of what is there what should be: routes come before the rules that lead to them.
func write(h *netlink.Handle, want plan, have found) (writes int, err error) {
	missing, obsolete := want.compare(have)
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
	for _, name := range have.names() {
		all = append(all, fmt.Sprintf("routing: %v, %s", r.family, name))
	}
	return all, nil
}

// names are those of rules and routes.
func (f found) names() []string {
	var all []string
	for _, x := range f.rules {
		all = append(all, fmt.Sprintf("rule of priority %d", x.Priority))
	}
	for _, x := range f.routes {
		to := "everything"
		if d := destination(x); d != "0" {
			to = d
		}
		all = append(all, fmt.Sprintf("route to %s of table %d", to, x.Table))
	}
	return all
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
