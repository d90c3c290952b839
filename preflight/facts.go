package preflight

import (
	"github.com/sluice-proxy/sluice/proxy"
)

// Facts are what was found on a node. Nothing changes them.
type Facts struct {
	Modes      []Mode
	Rules      []Rules
	Nft        string // the rule set as nft lists it, without elements; empty where nft cannot
	Interfaces []string
	Routing    []MarkRule
	Sysctls    map[string]string // by path below /proc/sys; those that exist
	Tracked    int               // connections
	TrackedMax int               // 0 is not known
	Listeners  []Listener
}

// Mode says whether a node can run a mode.
type Mode struct {
	Name    string
	Missing map[proxy.Family]error // nil: nothing
}

// Rules is what iptables-save of one backend and family says.
type Rules struct {
	Backend string
	Family  proxy.Family
	Text    string
}

// MarkRule is a routing rule that looks at marks, and not Sluice's.
type MarkRule struct {
	Priority   int
	Mark, Mask uint32
}

// Listener is a socket of the host that takes what comes.
type Listener struct {
	Protocol proxy.Protocol
	Addr     string // empty: every address
	Port     uint16
	Loopback bool
	Process  string // empty: not known
}

// Want is how Sluice is to run.
type Want struct {
	Mode           string // empty: the best of the node's
	MasqueradeMark uint32
	RouteMark      uint32 // of mode ipvs
	NodePorts      PortRange
	Localhost      bool     // NodePorts are served on 127.0.0.1
	Relays         []string // modes that do so by a relay, for which the kernel need not route loopback addresses
	Ports          []uint16 // of Sluice's own servers
	BeLiberal      bool
}

// mode is the one that will run: of the best, the first that works. It is empty if none does.
func (w Want) mode(f Facts) string {
	if w.Mode != "" {
		return w.Mode
	}
	for _, m := range f.Modes {
		if m.Missing[proxy.IPv4] == nil {
			return m.Name
		}
	}
	return ""
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// Has tells whether a port is in the range.
func (r PortRange) Has(port uint16) bool { return r.First <= port && port <= r.Last }

// Judge says what the facts mean for the way that Sluice is to run, the worst first.
func Judge(f Facts, w Want) []Finding {
	var all []Finding
	for _, judge := range []func(Facts, Want) []Finding{
		modes, proxies, backends, engines, marks, sysctls, connections, listeners, servers,
	} {
		all = append(all, judge(f, w)...)
	}
	return sorted(all)
}
