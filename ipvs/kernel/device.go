package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// CompatName is the interface that kube-proxy's IPVS mode has, and by which network plugins recognise IPVS.
const CompatName = "kube-ipvs0"

// addrGenNone is IN6_ADDR_GEN_MODE_NONE of the kernel's linux/if_link.h.
const addrGenNone = 1

// compatAlias is a note on ours.
const compatAlias = "sluice: marks the use of IPVS, has no addresses"

// HasCalico tells whether there are interfaces of Calico's pods.
func HasCalico() (bool, error) {
	h, err := open()
	if err != nil {
		return false, err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return false, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "cali") {
			return true, nil
		}
	}
	return false, nil
}

// AddCompatInterface makes an interface of that name, up and without any address, unless there is one, and tells whether
// it did.
func AddCompatInterface() (bool, error) {
	h, err := open()
	if err != nil {
		return false, err
	}
	defer h.Close()
	if _, err := h.LinkByName(CompatName); err == nil {
		return false, nil
	}
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: CompatName}}
	if err := h.LinkAdd(link); errors.Is(err, unix.EEXIST) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("make interface %s: %w", CompatName, err)
	}
	if err := h.LinkSetAlias(link, compatAlias); err != nil {
		return true, fmt.Errorf("name interface %s: %w", CompatName, err)
	}
	// The kernel would give it a link-local address. It may have no IPv6, and says so in one way or the other.
	err = h.LinkSetIP6AddrGenMode(link, addrGenNone)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return true, fmt.Errorf("keep interface %s without addresses: %w", CompatName, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return true, fmt.Errorf("set interface %s up: %w", CompatName, err)
	}
	return true, nil
}

// CompatInterface is what is known of the interface of that name.
type CompatInterface struct {
	There, Ours bool
	Addrs       []netip.Addr
}

// FindCompatInterface looks for the interface.
func FindCompatInterface() (CompatInterface, error) {
	h, err := open()
	if err != nil {
		return CompatInterface{}, err
	}
	defer h.Close()
	link, err := findCompat(h)
	if link == nil || err != nil {
		return CompatInterface{}, err
	}
	found := CompatInterface{There: true, Ours: link.Attrs().Alias == compatAlias}
	addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return found, fmt.Errorf("list addresses of interface %s: %w", CompatName, err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.Unmap().IsLinkLocalUnicast() {
			found.Addrs = append(found.Addrs, ip.Unmap())
		}
	}
	return found, nil
}

// findCompat is the interface, or nil.
func findCompat(h *netlink.Handle) (netlink.Link, error) {
	link, err := h.LinkByName(CompatName)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", CompatName, err)
	}
	return link, nil
}

// KubeProxyHasAddresses tells whether the interface has addresses of a family. Ours never has: they are kube-proxy's.
func KubeProxyHasAddresses(f proxy.Family) (bool, error) {
	found, err := FindCompatInterface()
	return slices.ContainsFunc(found.Addrs, f.Has), err
}

// RemoveCompatInterface removes the interface if it is ours. If somebody has given it addresses, it becomes his: kube-proxy
// takes what it finds.
func RemoveCompatInterface() error {
	found, err := FindCompatInterface()
	if err != nil || !found.Ours {
		return err
	}
	if len(found.Addrs) > 0 {
		return withCompat(func(h *netlink.Handle, link netlink.Link) error { return h.LinkSetAlias(link, "") })
	}
	return withCompat(func(h *netlink.Handle, link netlink.Link) error { return h.LinkDel(link) })
}

// RemoveKubeProxysInterface removes the interface if it is not ours; with keep it takes its addresses and makes it ours. What
// SpareCompatAddrs has made goes as well.
func RemoveKubeProxysInterface(keep bool) error {
	found, err := FindCompatInterface()
	if err != nil {
		return err
	}
	if found.There && !found.Ours {
		if err := withCompat(func(h *netlink.Handle, link netlink.Link) error { return disown(h, link, keep) }); err != nil {
			return err
		}
	}
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	return forgetSparedRoutes(h)
}

// disown removes an interface, or makes it ours.
func disown(h *netlink.Handle, link netlink.Link, keep bool) error {
	if !keep {
		return h.LinkDel(link)
	}
	addrs, err := h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := h.AddrDel(link, &a); err != nil {
			return err
		}
	}
	return h.LinkSetAlias(link, compatAlias)
}

// withCompat does something with the interface, if it is there.
func withCompat(f func(h *netlink.Handle, link netlink.Link) error) error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := findCompat(h)
	if link == nil || err != nil {
		return err
	}
	if err := f(h, link); err != nil {
		return fmt.Errorf("change or remove interface %s: %w", CompatName, err)
	}
	return nil
}

// LocalAddrs are the addresses of all interfaces of the node.
func LocalAddrs() (map[netip.Addr]bool, error) {
	h, err := open()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	list, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	all := map[netip.Addr]bool{}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			all[ip.Unmap()] = true
		}
	}
	return all, nil
}
