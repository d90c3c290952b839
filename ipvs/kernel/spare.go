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

// spareProtocol marks routes as ours that do not go with the interface.
const spareProtocol = 81

// SpareCompatAddrs lets new connections of the node itself to addresses of the interface come from the address that they will come from
// without it. The kernel would let them come from the very address that they go to, and such a connection ends with that address,
// whoever translates it. Its addresses remain the node's. RemoveKubeProxysInterface must follow.
func SpareCompatAddrs() error {
	return withCompat(func(h *netlink.Handle, link netlink.Link) error {
		var errs []error
		for _, f := range proxy.Families {
			if err := spare(h, link, f); err != nil {
				errs = append(errs, fmt.Errorf("prefer another source address, %v: %w", f, err))
			}
		}
		return errors.Join(errs...)
	})
}

func spare(h *netlink.Handle, link netlink.Link, f proxy.Family) error {
	routes, err := localRoutes(h, link, f)
	if err != nil || len(routes) == 0 {
		return err
	}
	source, err := usualSource(h, link, f)
	if err != nil || source == nil {
		return err
	}
	for _, own := range routes {
		if own.Dst == nil || own.Dst.IP.IsLinkLocalUnicast() || own.Src.Equal(source) {
			continue
		}
		if err := replaceLocal(h, own, source, f); err != nil {
			return fmt.Errorf("%v: %w", own.Dst, err)
		}
	}
	return nil
}

// replaceLocal lets a local route have another source.
func replaceLocal(h *netlink.Handle, own netlink.Route, source net.IP, f proxy.Family) error {
	other := own
	other.Src, other.Protocol = source, spareProtocol
	if f == proxy.IPv4 {
		return h.RouteReplace(&other)
	}
	// IPv6 takes no route through an interface that is down, and kube-proxy never sets its interface up. The new route comes behind
	// the kernel's own.
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	other.LinkIndex = lo.Attrs().Index
	if err := h.RouteReplace(&other); err != nil {
		return err
	}
	_, err = remove(h, found{routes: []netlink.Route{own}})
	return err
}

// localRoutes are those that make addresses of an interface the node's own.
func localRoutes(h *netlink.Handle, link netlink.Link, f proxy.Family) ([]netlink.Route, error) {
	wanted := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, LinkIndex: link.Attrs().Index}
	routes, err := h.RouteListFiltered(int(addressFamily(f)), wanted, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE|netlink.RT_FILTER_OIF)
	if err != nil {
		return nil, fmt.Errorf("list local routes: %w", err)
	}
	return routes, nil
}

// far are addresses that no node has and none has a route of its own to.
var far = map[proxy.Family]net.IP{proxy.IPv4: net.ParseIP("192.0.2.1"), proxy.IPv6: net.ParseIP("2001:db8::1")}

// usualSource is the address that packets to nowhere in particular come from, else any of the node's that is not the interface's.
// It is nil if there is none.
func usualSource(h *netlink.Handle, link netlink.Link, f proxy.Family) (net.IP, error) {
	addrs, err := h.AddrList(nil, int(addressFamily(f)))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var wanted, first net.IP
	if routes, err := h.RouteGet(far[f]); err == nil && len(routes) > 0 {
		wanted = routes[0].Src
	}
	for _, a := range addrs {
		if a.LinkIndex == link.Attrs().Index || a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		if a.IP.Equal(wanted) {
			return a.IP, nil
		}
		if first == nil {
			first = a.IP
		}
	}
	return first, nil
}

// SparedAddrs are the addresses whose routes do not go with the interface, and stay when it is gone without RemoveKubeProxysInterface.
func SparedAddrs() ([]netip.Addr, error) {
	h, err := open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	routes, err := sparedRoutes(h)
	var all []netip.Addr
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if ip, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			all = append(all, ip.Unmap())
		}
	}
	return all, err
}

// sparedRoutes are the routes of SpareCompatAddrs, of both families.
func sparedRoutes(h *netlink.Handle) ([]netlink.Route, error) {
	wanted := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: spareProtocol}
	var all []netlink.Route
	for _, f := range proxy.Families {
		routes, err := h.RouteListFiltered(int(addressFamily(f)), wanted, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE|netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return nil, fmt.Errorf("list local routes: %w", err)
		}
		all = append(all, routes...)
	}
	return all, nil
}

// forgetSparedRoutes removes them when the addresses have gone: the kernel does not take them for its own.
func forgetSparedRoutes(h *netlink.Handle) error {
	routes, err := sparedRoutes(h)
	if err != nil {
		return err
	}
	_, err = remove(h, found{routes: routes})
	return err
}
