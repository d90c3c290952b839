package lab

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

var anywhere = netip.MustParsePrefix("0.0.0.0/0")

// The next hop of pods that have an interface of the node each. Nobody has these addresses: a
// permanent neighbour entry stands for them.
var (
	podGateway  = netip.MustParseAddr("169.254.1.1")
	podGateway6 = netip.MustParseAddr("fe80::1")
)

// The hardware addresses of pods' links, set so that nobody needs to ask for them.
var (
	nodeMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	bridgeMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// podMAC is unique among the pods of a node.
func podMAC(pod *Host) net.HardwareAddr {
	four := pod.addrs[0].As4()
	return net.HardwareAddr{2, 1, four[0], four[1], four[2], four[3]}
}

// end is one end of a cable.
type end struct {
	ns   *Namespace
	name string
}

// wire lays a cable between two namespaces, both ends up. If pod is not empty it is the far end's
// hardware address, and the near end has nodeMAC.
func (l *Lab) wire(near, far end, pod string) error {
	cable := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: near.name},
		PeerName:      far.name,
		PeerNamespace: netlink.NsFd(far.ns.handle),
	}
	if pod != "" {
		cable.HardwareAddr = nodeMAC
		cable.PeerHardwareAddr = net.HardwareAddr(pod)
	}
	if err := near.ns.links.LinkAdd(cable); err != nil {
		return fmt.Errorf("add veth %s: %w", near.name, err)
	}
	for _, e := range []end{near, far} {
		link, err := e.ns.links.LinkByName(e.name)
		if err != nil {
			return fmt.Errorf("find %s: %w", e.name, err)
		}
		if err := e.ns.links.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", e.name, err)
		}
	}
	return nil
}

// linkTimeout is far more than the kernel needs, even on a busy machine.
const linkTimeout = 30 * time.Second

// awaitLinks waits until every interface of the lab's sends what it is given: the end of a cable that was set up
// first silently drops everything until the kernel has noticed that the other end is up too.
func (ns *Namespace) awaitLinks() error {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(linkTimeout); ; <-poll.C {
		links, err := ns.links.LinkList()
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		waiting := slices.IndexFunc(links, func(l netlink.Link) bool {
			ours := l.Type() == "veth" || l.Type() == "bridge"
			return ours && l.Attrs().OperState != netlink.OperUp
		})
		if waiting < 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("interface %s is %v", links[waiting].Attrs().Name, links[waiting].Attrs().OperState)
		}
	}
}

// onLink runs f with the index of an interface.
func (ns *Namespace) onLink(name string, f func(index int) error) func() error {
	return func() error {
		link, err := ns.links.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		return f(link.Attrs().Index)
	}
}

// address gives an interface addresses, in both families. The first is the one that connections come
// from: IPv4 does so by itself, for IPv6 the others are deprecated.
func (ns *Namespace) address(name string, bits int, addrs ...netip.Addr) func() error {
	return ns.onLink(name, func(index int) error {
		for i, a := range addrs {
			for _, f := range proxy.Families {
				addr := &netlink.Addr{IPNet: ipNet(PrefixIn(f, netip.PrefixFrom(a, bits)))}
				if f == proxy.IPv6 {
					addr.Flags = unix.IFA_F_NODAD
					if i > 0 {
						addr.ValidLft = math.MaxUint32
					}
				}
				if err := ns.links.AddrAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}, addr); err != nil {
					return fmt.Errorf("add %v to %s: %w", addr.IPNet, name, err)
				}
			}
		}
		return nil
	})
}

// route sends a prefix to a gateway, in both families.
func (ns *Namespace) route(to netip.Prefix, via netip.Addr, name string) func() error {
	return ns.onLink(name, func(index int) error {
		for _, f := range proxy.Families {
			r := &netlink.Route{LinkIndex: index, Dst: ipNet(PrefixIn(f, to)), Gw: In(f, via).AsSlice()}
			if err := ns.links.RouteAdd(r); err != nil {
				return fmt.Errorf("add route %v: %w", r, err)
			}
		}
		return nil
	})
}

// own makes every address of a prefix a local one, in both families.
func (ns *Namespace) own(p netip.Prefix) func() error {
	return ns.onLink("lo", func(index int) error {
		for _, f := range proxy.Families {
			r := &netlink.Route{LinkIndex: index, Dst: ipNet(PrefixIn(f, p)), Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}
			if err := ns.links.RouteAdd(r); err != nil {
				return fmt.Errorf("add local route %v: %w", r, err)
			}
		}
		return nil
	})
}

// disownLoopback makes 127.0.0.0/8 addresses like others, that can be sent to others.
func (ns *Namespace) disownLoopback() error {
	if err := ns.Sysctl(map[string]string{"net/ipv4/conf/all/route_localnet": "1"}); err != nil {
		return err
	}
	lo, err := ns.links.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	own, err := ns.links.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses of lo: %w", err)
	}
	for _, addr := range own {
		if err := ns.links.AddrDel(lo, &addr); err != nil {
			return fmt.Errorf("delete %v: %w", addr.IPNet, err)
		}
	}
	return nil
}

// attachRouted connects a pod by an interface of the node's, with a route to just that pod, as
// Calico and others do.
func (l *Lab) attachRouted(pod *Host) error {
	err := l.wire(end{l.Node.Namespace, pod.Name}, end{pod.Namespace, "eth0"}, string(podMAC(pod)))
	if err != nil {
		return err
	}
	return steps(
		pod.address("eth0", 32, pod.addrs[0]),
		pod.gateway([2]netip.Addr{podGateway, podGateway6}, nodeMAC),
		l.Node.neighbour(pod.Name, [2]netip.Addr{pod.Addr(proxy.IPv4), pod.Addr(proxy.IPv6)}, podMAC(pod)),
	)
}

// addBridge makes the bridge that the pods of the node share.
func (l *Lab) addBridge() error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: BridgeName, HardwareAddr: bridgeMAC}}
	if err := l.Node.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge %s: %w", BridgeName, err)
	}
	if err := l.Node.links.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set %s up: %w", BridgeName, err)
	}
	return l.Node.address(BridgeName, NodeCIDR.Bits(), bridgeIP)()
}

// attachBridged connects a pod to the bridge. A pod may talk to itself through its port, and sends
// even what is meant for its neighbours to the node, so that replies pass the node too.
func (l *Lab) attachBridged(pod *Host) error {
	err := l.wire(end{l.Node.Namespace, pod.Name}, end{pod.Namespace, "eth0"}, string(podMAC(pod)))
	if err != nil {
		return err
	}
	port, err := l.Node.links.LinkByName(pod.Name)
	if err != nil {
		return fmt.Errorf("find %s: %w", pod.Name, err)
	}
	bridge, err := l.Node.links.LinkByName(BridgeName)
	if err != nil {
		return fmt.Errorf("find %s: %w", BridgeName, err)
	}
	if err := l.Node.links.LinkSetMasterByIndex(port, bridge.Attrs().Index); err != nil {
		return fmt.Errorf("add %s to %s: %w", pod.Name, BridgeName, err)
	}
	if err := l.Node.links.LinkSetHairpin(port, true); err != nil {
		return fmt.Errorf("allow hairpin on %s: %w", pod.Name, err)
	}
	return steps(
		pod.address("eth0", 32, pod.addrs[0]),
		pod.gateway([2]netip.Addr{bridgeIP, In(proxy.IPv6, bridgeIP)}, bridgeMAC),
		l.Node.neighbour(BridgeName, [2]netip.Addr{pod.Addr(proxy.IPv4), pod.Addr(proxy.IPv6)}, podMAC(pod)),
	)
}

// gateway makes addresses, one a family, the next hop for everything.
func (ns *Namespace) gateway(via [2]netip.Addr, mac net.HardwareAddr) func() error {
	return func() error {
		if err := ns.neighbour("eth0", via, mac)(); err != nil {
			return err
		}
		return ns.onLink("eth0", func(index int) error {
			for _, f := range proxy.Families {
				r := &netlink.Route{LinkIndex: index, Dst: ipNet(PrefixIn(f, anywhere)), Gw: via[f].AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
				if err := ns.links.RouteAdd(r); err != nil {
					return fmt.Errorf("add route %v: %w", r, err)
				}
			}
			return nil
		})()
	}
}

// neighbour makes addresses, one a family, known on an interface: a route and a permanent
// neighbour entry each.
func (ns *Namespace) neighbour(name string, addrs [2]netip.Addr, mac net.HardwareAddr) func() error {
	return ns.onLink(name, func(index int) error {
		for _, a := range addrs {
			r := &netlink.Route{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(a, a.BitLen())), Scope: netlink.SCOPE_LINK}
			if err := ns.links.RouteReplace(r); err != nil {
				return fmt.Errorf("add route %v: %w", r, err)
			}
			n := &netlink.Neigh{LinkIndex: index, IP: a.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT}
			if err := ns.links.NeighSet(n); err != nil {
				return fmt.Errorf("add neighbour %v: %w", n, err)
			}
		}
		return nil
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// AddLoopback gives the host an address on its loopback interface, and returns how to take it away.
func (h *Host) AddLoopback(a netip.Addr) (remove func() error, err error) {
	lo, err := h.links.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.links.AddrAdd(lo, addr); err != nil {
		return nil, fmt.Errorf("add %v to lo of %s: %w", a, h.Name, err)
	}
	return func() error { return h.links.AddrDel(lo, addr) }, nil
}
