package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// The link from a node to the control plane, which has apiAddr too.
var (
	linkAPI   = netip.MustParsePrefix("192.168.80.0/24")
	nodeOnAPI = netip.MustParseAddr("192.168.80.1")
	apiOnLink = netip.MustParseAddr("192.168.80.2")
)

// The base line's only Service.
var baseVIP = netip.MustParseAddr("10.96.0.99")

const apiLink = "api"

// node is a new machine with a pod on it, from which connections are made to pods elsewhere.
type node struct {
	*lab.Lab
	unlink func() error // nil if it has no link to a control plane
}

// newNode makes a machine without a proxy. The namespace is the control plane's, nil for none.
func newNode(plane *lab.Namespace) (*node, error) {
	l, err := lab.New(lab.Config{Pods: 1})
	if err != nil {
		return nil, err
	}
	n := &node{Lab: l}
	if err := n.Crowd.Serve(proxy.TCP, targetPort); err != nil {
		return nil, errors.Join(err, n.close())
	}
	if plane != nil {
		if err := n.link(plane); err != nil {
			return nil, errors.Join(fmt.Errorf("link node to control plane: %w", err), n.close())
		}
	}
	return n, nil
}

// newBaseNode makes a machine that has connection tracking and a single DNAT rule.
func newBaseNode(backend string) (*node, error) {
	n, err := newNode(nil)
	if err != nil {
		return nil, err
	}
	_, err = n.Node.Run("iptables-"+backend, "-t", "nat", "-A", "PREROUTING", "-d", baseVIP.String(), "-p", "tcp",
		"--dport", fmt.Sprint(servicePort), "-j", "DNAT", "--to-destination", at(straight, targetPort).String())
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	return n, nil
}

// link lays a cable to the control plane.
func (n *node) link(plane *lab.Namespace) error {
	far, err := netns.GetFromPath(plane.Path())
	if err != nil {
		return err
	}
	defer func() { _ = far.Close() }()
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: apiLink}, PeerName: apiLink, PeerNamespace: netlink.NsFd(far)}
	if err := n.Node.Netlink().LinkAdd(cable); err != nil {
		return err
	}
	// A namespace goes some time after its last user. The next node's link has the same name and addresses.
	n.unlink = func() error { return n.Node.Netlink().LinkDel(cable) }
	return errors.Join(plug(n.Node.Netlink(), nodeOnAPI), plug(plane.Netlink(), apiOnLink))
}

// plug sets an end of the cable up, with an address.
func plug(links *netlink.Handle, addr netip.Addr) error {
	link, err := links.LinkByName(apiLink)
	if err != nil {
		return err
	}
	a := netlink.NewIPNet(addr.AsSlice())
	a.Mask = net.CIDRMask(linkAPI.Bits(), linkAPI.Addr().BitLen())
	if err := links.AddrAdd(link, &netlink.Addr{IPNet: a}); err != nil {
		return err
	}
	return links.LinkSetUp(link)
}

// client is where connections come from.
func (n *node) client() *lab.Host { return n.Pods[0] }

// close removes the machine.
func (n *node) close() error {
	var err error
	if n.unlink != nil {
		err = n.unlink()
	}
	return errors.Join(err, n.Close())
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
