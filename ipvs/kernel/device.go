package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/proxy"
)

// The interface that kube-proxy's IPVS mode has, and by which network plugins recognise IPVS. Ours has a note on it.
const (
	compatName  = "kube-ipvs0"
	compatAlias = "sluice: marks the use of IPVS, has no addresses"
)

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
	if _, err := h.LinkByName(compatName); err == nil {
		return false, nil
	}
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: compatName}}
	if err := h.LinkAdd(link); errors.Is(err, unix.EEXIST) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("make interface %s: %w", compatName, err)
	}
	if err := h.LinkSetAlias(link, compatAlias); err != nil {
		return true, fmt.Errorf("name interface %s: %w", compatName, err)
	}
	// The kernel would give it a link-local address.
	_, err = sysctl.Tree{}.Set("proc/sys/net/ipv6/conf/"+compatName+"/disable_ipv6", 1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	if err := h.LinkSetUp(link); err != nil {
		return true, fmt.Errorf("set interface %s up: %w", compatName, err)
	}
	return true, nil
}

// KubeProxyHasAddresses tells whether the interface has addresses of a family. Ours never has: they are kube-proxy's.
func KubeProxyHasAddresses(f proxy.Family) (bool, error) {
	h, err := open()
	if err != nil {
		return false, err
	}
	defer h.Close()
	link, err := h.LinkByName(compatName)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find interface %s: %w", compatName, err)
	}
	addrs, err := h.AddrList(link, int(addressFamily(f)))
	if err != nil {
		return false, fmt.Errorf("list addresses of interface %s: %w", compatName, err)
	}
	return slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return !a.IP.IsLinkLocalUnicast() }), nil
}

// RemoveCompatInterface removes the interface if it is ours.
func RemoveCompatInterface() error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(compatName)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", compatName, err)
	}
	if link.Attrs().Alias != compatAlias {
		return nil
	}
	if err := h.LinkDel(link); err != nil {
		return fmt.Errorf("remove interface %s: %w", compatName, err)
	}
	return nil
}
