package kernel

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// SpareCompatAddrs lets new connections of the node itself to addresses of the interface come from the address that they will come from
// without it. The kernel would let them come from the very address that they go to, and such a connection ends with that address,
// whoever translates it. Its addresses remain the node's.
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
		other := own
		other.Src, other.Protocol = source, unix.RTPROT_BOOT
		if err := h.RouteReplace(&other); err != nil {
			return fmt.Errorf("%v: %w", own.Dst, err)
		}
		// In IPv6 it comes behind the kernel's own.
		if f == proxy.IPv6 && own.Protocol == unix.RTPROT_KERNEL {
			if err := h.RouteDel(&own); err != nil {
				return fmt.Errorf("%v: %w", own.Dst, err)
			}
		}
	}
	return nil
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

// forgetLocalRoutes removes those that are left when the addresses have gone: the kernel does not take them for its own.
func forgetLocalRoutes(h *netlink.Handle, link netlink.Link) error {
	for _, f := range proxy.Families {
		routes, err := localRoutes(h, link, f)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.Protocol != unix.RTPROT_KERNEL {
				if err := h.RouteDel(&r); err != nil {
					return fmt.Errorf("remove local route to %v: %w", r.Dst, err)
				}
			}
		}
	}
	return nil
}
