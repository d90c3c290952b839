package nodeinfo

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// NodePortSelection says which of a node's addresses serve NodePorts. The zero value is all of them.
type NodePortSelection struct {
	all, primary, localhost bool
	prefixes                []netip.Prefix
}

// ParseNodePortSelection reads CIDRs and the keywords "all", "primary" (the node's own IP of each
// family) and "localhost". Its error names every value that is neither.
func ParseNodePortSelection(values []string) (NodePortSelection, error) {
	var s NodePortSelection
	var errs []error
	for _, value := range values {
		switch value {
		case "all":
			s.all = true
		case "primary":
			s.primary = true
		case "localhost":
			s.localhost = true
		default:
			p, err := netip.ParsePrefix(value)
			if err != nil {
				errs = append(errs, fmt.Errorf("%q is neither a CIDR nor one of all, primary, localhost", value))
				continue
			}
			s.prefixes = append(s.prefixes, p.Masked())
		}
	}
	return s, errors.Join(errs...)
}

// Names tells whether the selection says anything about a family. If not, it selects all its addresses.
func (s NodePortSelection) Names(f proxy.Family) bool {
	return s.all || s.primary || s.localhost ||
		slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return f.Has(p.Addr()) })
}

// ServesLocalhost tells whether the IPv4 loopback range is selected.
func (s NodePortSelection) ServesLocalhost() bool {
	return !s.Names(proxy.IPv4) || s.all || s.localhost ||
		slices.ContainsFunc(s.prefixes, proxy.IPv4.Loopback().Overlaps)
}

// namesLoopback tells whether the family's loopback address is selected by name, or by a range that has no other addresses than
// loopback ones.
func (s NodePortSelection) namesLoopback(f proxy.Family) bool {
	loop := f.Loopback()
	return s.localhost || slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool {
		return p.Bits() >= loop.Bits() && p.Contains(f.Localhost())
	})
}

func (s NodePortSelection) everything(f proxy.Family) bool {
	return !s.Names(f) || s.all || slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool {
		return f.Has(p.Addr()) && p.Bits() == 0
	})
}

// resolve is the selection on a node with that IP (primary stands for nothing if it is unknown) and those
// addresses of both families.
func (s NodePortSelection) resolve(f proxy.Family, ip netip.Addr, addrs []netip.Addr, cfg *Config) proxy.NodePortAddrs {
	served := cfg.LocalhostNodePorts && f == proxy.IPv4 && s.ServesLocalhost()
	n := proxy.NodePortAddrs{Localhost: served && !cfg.RelayLocalhost}
	n.Relayed = !n.Localhost && s.namesLoopback(f)
	if cfg.RelayLocalhost && f == proxy.IPv4 {
		n.Relayed = served
	}
	if s.everything(f) {
		n.All = true
		return n
	}
	for _, a := range addrs {
		selected := s.primary && a == ip || slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
		if f.Has(a) && !a.IsLoopback() && selected {
			n.Addrs = append(n.Addrs, a)
		}
	}
	slices.SortFunc(n.Addrs, netip.Addr.Compare)
	n.Addrs = slices.Compact(n.Addrs)
	return n
}
