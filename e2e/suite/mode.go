package suite

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

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
var Modes = []Mode{iptables("nft"), iptables("legacy"), nftables, ipvs}

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

// The least time between two changes is the same, whatever flag sets it.
var ipvs = Mode{
	Name:    "ipvs",
	Mode:    "ipvs",
	Flags:   []string{"--mode", "ipvs", "--ipvs-min-sync-period", minSync},
	Backend: "nft",
}

// Require skips the test if this kernel does not have what the mode is made of.
func (m Mode) Require(t *testing.T) {
	t.Helper()
	if m.Mode == ipvs.Mode && !hasIPVS() {
		t.Skip("this kernel has no IPVS; that of e2e/vm has")
	}
}

var hasIPVS = sync.OnceValue(func() bool {
	_ = exec.Command("modprobe", "ip_vs").Run() // which may be built in, or there already
	_, err := os.Stat("/proc/net/ip_vs")
	return err == nil
})

// Tool is the name of an iptables program: "", "save" or "restore".
func (m Mode) Tool(f proxy.Family, suffix string) string {
	name := "iptables-"
	if f == proxy.IPv6 {
		name = "ip6tables-"
	}
	return strings.TrimSuffix(name+m.Backend+"-"+suffix, "-")
}
