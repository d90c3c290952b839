package suite

import (
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// Mode is a way to run Sluice.
type Mode struct {
	Name  string   // of the subtest
	Mode  string   // as --mode has it
	Flags []string // all that tells it from other modes

	// Backend is that of the node's own iptables programs: nft or legacy.
	Backend string
}

// Modes are what every suite runs through.
var Modes = []Mode{iptables("nft"), iptables("legacy"), nftables}

// minSync lets a suite make one change after another.
const minSync = "100ms"

func iptables(backend string) Mode {
	return Mode{
		Name:    "iptables-" + backend,
		Mode:    "iptables",
		Flags:   []string{"--mode", "iptables", "--iptables-backend", backend, "--iptables-min-sync-period", minSync},
		Backend: backend,
	}
}

var nftables = Mode{
	Name:    "nftables",
	Mode:    "nftables",
	Flags:   []string{"--mode", "nftables", "--iptables-min-sync-period", minSync},
	Backend: "nft",
}

// Tool is the name of an iptables program: "", "save" or "restore".
func (m Mode) Tool(f proxy.Family, suffix string) string {
	name := "iptables-"
	if f == proxy.IPv6 {
		name = "ip6tables-"
	}
	return strings.TrimSuffix(name+m.Backend+"-"+suffix, "-")
}
