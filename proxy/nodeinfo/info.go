package nodeinfo

import (
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-proxy/sluice/proxy"
)

// Config is what is known of a node without asking anybody.
type Config struct {
	Name     string // of the Node object; required
	Families []proxy.Family

	// BindAddress, if valid and not the unspecified address, is the node's IP of its family whatever the
	// Node object says.
	BindAddress netip.Addr

	NodePorts   NodePortSelection
	PodDetector PodDetector

	// LocalhostNodePorts lets NodePorts be served on 127.0.0.0/8, if NodePorts includes it.
	// There is no such thing for ::1, which the kernel never routes to another address.
	LocalhostNodePorts bool

	// RelayLocalhost says that the mode cannot, and that 127.0.0.1 is relayed in that case.
	RelayLocalhost bool

	// ServiceCIDRs are known beside those that SetServiceCIDRs names.
	ServiceCIDRs []netip.Prefix

	MasqueradeAll  bool
	MasqueradeMark uint32

	// Standalone says that there is no Node object: the node's IPs are the first addresses found on its
	// interfaces.
	Standalone bool
}

// Info holds the facts of this node. It is safe for concurrent use.
type Info struct {
	cfg     Config
	changed chan struct{}

	lock         sync.Mutex
	learned      chan struct{} // closed and replaced at each new fact
	zone         string
	ips          [2]netip.Addr // by family, from the Node object
	podCIDRs     []netip.Prefix
	addrs        []netip.Addr // of all interfaces, in their order
	serviceCIDRs map[string][]netip.Prefix
	nodes        map[proxy.Family]*proxy.Node
}

// New makes an Info that knows its configuration only.
func New(cfg Config) *Info {
	i := &Info{
		cfg:          cfg,
		changed:      make(chan struct{}, 1),
		learned:      make(chan struct{}),
		serviceCIDRs: map[string][]netip.Prefix{},
		nodes:        map[proxy.Family]*proxy.Node{},
	}
	i.publish()
	return i
}

// Changed receives after Node has begun to return another value for some family.
func (i *Info) Changed() <-chan struct{} { return i.changed }

// Node is what is known now. It is nil only for a family that the configuration does not name.
func (i *Info) Node(f proxy.Family) *proxy.Node {
	i.lock.Lock()
	defer i.lock.Unlock()
	return i.nodes[f]
}

// SetNode takes over what the Node object says. What it does not say (a Node that has just been created again
// has no addresses and no podCIDRs yet) stays as it was; so does everything when a Node is deleted.
func (i *Info) SetNode(node *corev1.Node) {
	i.update(func() {
		i.zone = node.Labels[corev1.LabelTopologyZone]
		for f, ip := range hostIPs(node.Status.Addresses) {
			if ip.IsValid() {
				i.ips[f] = ip
			}
		}
		if cidrs := podCIDRs(node.Spec); len(cidrs) > 0 {
			i.podCIDRs = cidrs
		}
	})
}

// SetServiceCIDRs says which ranges the ServiceCIDR object of that name holds; none if it is
// deleted. Several objects may hold the same range.
func (i *Info) SetServiceCIDRs(name string, cidrs []netip.Prefix) {
	i.update(func() {
		if len(cidrs) == 0 {
			delete(i.serviceCIDRs, name)
		} else {
			i.serviceCIDRs[name] = slices.Clone(cidrs)
		}
	})
}

// SetAddrs says which addresses the node's interfaces have, all families together, in the order of the
// interfaces.
func (i *Info) SetAddrs(addrs []netip.Addr) {
	i.update(func() { i.addrs = slices.Clone(addrs) })
}

func (i *Info) update(change func()) {
	i.lock.Lock()
	defer i.lock.Unlock()
	change()
	close(i.learned)
	i.learned = make(chan struct{})
	if i.publish() {
		select {
		case i.changed <- struct{}{}:
		default:
		}
	}
}

// publish replaces the nodes that are no longer right and tells whether there were any. The lock is held.
func (i *Info) publish() bool {
	changed := false
	for _, f := range i.cfg.Families {
		if node := i.node(f); !node.Equal(i.nodes[f]) {
			i.nodes[f] = node
			changed = true
		}
	}
	return changed
}

// node is what the facts amount to. The lock is held.
func (i *Info) node(f proxy.Family) *proxy.Node {
	ip := i.ip(f)
	return &proxy.Node{
		Family:         f,
		Name:           i.cfg.Name,
		Zone:           i.zone,
		IP:             ip,
		Addrs:          i.ownAddrs(f),
		NodePorts:      i.cfg.NodePorts.resolve(f, ip, i.addrs, &i.cfg),
		PodSource:      i.cfg.PodDetector.source(f, i.podCIDRs),
		MasqueradeAll:  i.cfg.MasqueradeAll,
		MasqueradeMark: i.cfg.MasqueradeMark,
		ServiceCIDRs:   i.allServiceCIDRs(f),
	}
}

func (i *Info) ip(f proxy.Family) netip.Addr {
	if bind := i.cfg.BindAddress; f.Has(bind) && !bind.IsUnspecified() {
		return bind
	}
	if !i.cfg.Standalone {
		return i.ips[f]
	}
	for _, a := range i.addrs {
		if f.Has(a) && a.IsGlobalUnicast() {
			return a
		}
	}
	return netip.Addr{}
}

func (i *Info) ownAddrs(f proxy.Family) []netip.Addr {
	var own []netip.Addr
	for _, a := range i.addrs {
		if f.Has(a) && !a.IsLinkLocalUnicast() {
			own = append(own, a)
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return slices.Compact(own)
}

func (i *Info) allServiceCIDRs(f proxy.Family) []netip.Prefix {
	var all []netip.Prefix
	add := func(cidrs []netip.Prefix) {
		for _, p := range cidrs {
			if f.Has(p.Addr()) {
				all = append(all, p.Masked())
			}
		}
	}
	add(i.cfg.ServiceCIDRs)
	for _, cidrs := range i.serviceCIDRs {
		add(cidrs)
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// hostIPs are, by family, the first internal address of a Node, or else the first external one.
func hostIPs(addresses []corev1.NodeAddress) [2]netip.Addr {
	var ips [2]netip.Addr
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range addresses {
			ip, err := netip.ParseAddr(a.Address)
			if err != nil || a.Type != kind || ip.IsUnspecified() {
				continue
			}
			ip = ip.Unmap().WithZone("")
			if f := proxy.FamilyOf(ip); !ips[f].IsValid() {
				ips[f] = ip
			}
		}
	}
	return ips
}

func podCIDRs(spec corev1.NodeSpec) []netip.Prefix {
	texts := spec.PodCIDRs
	if len(texts) == 0 && spec.PodCIDR != "" {
		texts = []string{spec.PodCIDR}
	}
	var cidrs []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			cidrs = append(cidrs, p.Masked())
		}
	}
	return cidrs
}

// toBeDeleted is the taint of nodes that the cluster autoscaler is about to remove.
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// Eligible tells whether load balancers should send new connections to a node. A cordoned node still is.
func Eligible(node *corev1.Node) bool {
	return node.DeletionTimestamp == nil &&
		!slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == toBeDeleted })
}
