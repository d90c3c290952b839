package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
)

// Virtual is what mode ipvs has besides Rules: virtual servers, and the interface with their addresses. Its ipsets are Sets. IPVS
// does not tell whose a virtual server is, so the rest must go later: it proves which are kube-proxy's.
type Virtual struct {
	// Ours tells whether Sluice has a family's virtual server, which may have been kube-proxy's. Nil is none.
	Ours func(ctx context.Context, f proxy.Family) (func(kernel.ID) bool, error)

	// KeepInterface tells whether Sluice wants an interface of that name. Nil is no.
	KeepInterface func(ctx context.Context) (bool, error)
}

// Traces names what Remove removes, an object each.
func (v Virtual) Traces(ctx context.Context) ([]string, error) {
	var all []string
	for _, f := range proxy.Families {
		servers, err := v.servers(ctx, f)
		if err != nil {
			return all, err
		}
		for _, s := range servers {
			all = append(all, fmt.Sprintf("ipvs: virtual server %v", s.ID))
		}
	}
	spared, err := kernel.SparedAddrs()
	for _, a := range spared {
		all = append(all, fmt.Sprintf("local route to %v", a))
	}
	if err != nil {
		return all, err
	}
	found, err := kernel.FindCompatInterface()
	if err != nil || !found.There || found.Ours {
		return all, err
	}
	keep, err := v.keep(ctx)
	if err != nil {
		return all, err
	}
	if keep {
		return append(all, "addresses of interface "+kernel.CompatName+", which stays for Calico"), nil
	}
	return append(all, "interface "+kernel.CompatName), nil
}

func (v Virtual) keep(ctx context.Context) (bool, error) {
	if v.KeepInterface == nil {
		return false, nil
	}
	return v.KeepInterface(ctx)
}

// Spare keeps new connections of the node itself from coming from addresses that go with the interface, as they would while it is
// there. It is for the time before Remove, in which others end.
func (Virtual) Spare() error {
	found, err := kernel.FindCompatInterface()
	if err != nil || found.Ours {
		return err
	}
	return kernel.SpareCompatAddrs()
}

// Connections counts those that end with what Remove removes: those through the virtual servers, and the node's own that come from
// addresses of the interface.
func (v Virtual) Connections(ctx context.Context) (n uint32, err error) {
	device, err := kernel.FindCompatInterface()
	if err != nil {
		return 0, err
	}
	addrs := map[netip.Addr]bool{}
	for _, a := range device.Addrs {
		addrs[a] = true
	}
	if n, err = socketsAt("/proc/thread-self/net", addrs); err != nil {
		return 0, err
	}
	for _, f := range proxy.Families {
		loads, err := v.loads(ctx, f)
		if err != nil {
			return 0, err
		}
		for _, list := range loads {
			for _, l := range list {
				n += l.Connections()
			}
		}
	}
	return n, nil
}

func (v Virtual) loads(ctx context.Context, f proxy.Family) (map[kernel.ID][]kernel.Load, error) {
	servers, err := v.servers(ctx, f)
	var ids []kernel.ID
	for _, s := range servers {
		ids = append(ids, s.ID)
	}
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	return kernel.NewIPVS(f).Dests(ctx, ids)
}

// handOver ends the flows of UDP through the virtual servers: their next packets begin flows that Sluice's rules translate.
func (v Virtual) handOver(ctx context.Context, f proxy.Family) error {
	loads, err := v.loads(ctx, f)
	backends := map[netip.AddrPort]bool{}
	for id, list := range loads {
		for _, l := range list {
			if id.Protocol == proxy.UDP && l.Connections() > 0 {
				backends[l.Addr] = true
			}
		}
	}
	if err != nil {
		return err
	}
	_, err = conntrack.HandOver(ctx, &conntrack.Kernel{}, f, backends)
	return err
}

// Remove leaves the interface if a virtual server is left.
func (v Virtual) Remove(ctx context.Context) error {
	for _, f := range proxy.Families {
		servers, err := v.servers(ctx, f)
		if err != nil {
			return err
		}
		var commands []kernel.Command
		for _, s := range servers {
			commands = append(commands, kernel.Command{Op: kernel.DeleteServer, Server: s})
		}
		if err := v.handOver(ctx, f); err != nil {
			return err
		}
		refused, err := kernel.NewIPVS(f).Run(ctx, commands)
		for _, r := range refused {
			if !r.Missing() {
				err = errors.Join(err, r)
			}
		}
		if err != nil {
			return err
		}
	}
	keep, err := v.keep(ctx)
	if err != nil {
		return err
	}
	return kernel.RemoveKubeProxysInterface(keep)
}

// servers are the virtual servers of a family that are certainly kube-proxy's.
func (v Virtual) servers(ctx context.Context, f proxy.Family) ([]kernel.Server, error) {
	all, err := kernel.NewIPVS(f).ListIfLoaded(ctx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	ours := func(kernel.ID) bool { return false }
	if v.Ours != nil {
		if ours, err = v.Ours(ctx, f); err != nil {
			return nil, err
		}
	}
	p, err := findProofs(f)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s kernel.Server) bool { return ours(s.ID) || !p.has(s.ID) }), nil
}

// proofs tell whose a virtual server is.
type proofs struct {
	bound   map[netip.Addr]bool    // addresses of kube-proxy's interface
	local   map[netip.Addr]bool    // addresses of the node
	members map[kernel.Member]bool // of its ipsets: addresses with a port, or ports of NodePorts
}

// has tells whether a virtual server is at an address that kube-proxy has given its interface, or stands in one of its ipsets.
// It has none that is known by a mark.
func (p proofs) has(id kernel.ID) bool {
	addr, port := id.Addr.Addr(), id.Addr.Port()
	return id.Mark == 0 && (p.bound[addr] ||
		p.members[kernel.Member{Addr: addr, Port: port, Protocol: id.Protocol}] ||
		p.local[addr] && p.members[kernel.Member{Port: port, Protocol: id.Protocol}])
}

// portSets are the ipsets of ports without an address, each of one protocol.
var portSets = map[string]proxy.Protocol{
	"KUBE-NODE-PORT-TCP": proxy.TCP, "KUBE-NODE-PORT-LOCAL-TCP": proxy.TCP,
	"KUBE-NODE-PORT-UDP": proxy.UDP, "KUBE-NODE-PORT-LOCAL-UDP": proxy.UDP,
}

// addrSets are the ipsets of addresses of Services with their ports.
var addrSets = []string{
	"KUBE-CLUSTER-IP", "KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL", "KUBE-LOAD-BALANCER", "KUBE-LOAD-BALANCER-LOCAL",
	"KUBE-NODE-PORT-SCTP-HASH", "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
}

func findProofs(f proxy.Family) (proofs, error) {
	p := proofs{bound: map[netip.Addr]bool{}, members: map[kernel.Member]bool{}}
	device, err := kernel.FindCompatInterface()
	if err != nil {
		return p, err
	}
	for _, a := range device.Addrs {
		p.bound[a] = true
	}
	if p.local, err = kernel.LocalAddrs(); err != nil {
		return p, err
	}
	found, err := kernel.Sets(func(name string) bool { return isSet(name) && setNames[name].family == f })
	for _, s := range found {
		name := setNames[s.Name].name
		for _, m := range s.Members {
			if protocol, only := portSets[name]; only {
				p.members[kernel.Member{Port: m.Port, Protocol: protocol}] = true
			} else if slices.Contains(addrSets, name) {
				p.members[m] = true
			}
		}
	}
	return p, err
}

// Sets are the ipsets of mode ipvs. Rules use them as long as they are there.
type Sets struct{}

// Traces names what Remove removes, an object each.
func (Sets) Traces(context.Context) ([]string, error) {
	found, err := kernel.Sets(isSet)
	var all []string
	for _, s := range found {
		all = append(all, "ipset "+s.Name)
	}
	return all, err
}

// Remove goes on after an error.
func (Sets) Remove(context.Context) error {
	found, err := kernel.Sets(isSet)
	errs := []error{err}
	for _, s := range found {
		errs = append(errs, kernel.RemoveSet(s.Name))
	}
	return errors.Join(errs...)
}

// setNames are the names of all ipsets of kube-proxy, by which it is.
var setNames = func() map[string]setName {
	const longest = 31 // that the kernel takes
	all := map[string]setName{}
	for _, name := range sets {
		six := "KUBE-6-" + strings.TrimPrefix(name, "KUBE-")
		all[name] = setName{name, proxy.IPv4}
		all[six[:min(len(six), longest)]] = setName{name, proxy.IPv6}
	}
	return all
}()

// setName is an ipset of a family; name is what it is called in IPv4.
type setName struct {
	name   string
	family proxy.Family
}

func isSet(name string) bool { return setNames[name].name != "" }
