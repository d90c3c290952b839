package kernel_test

import (
	"os/exec"
	"testing"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/nftables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
)

// TestKernelNftables plays every scenario in both families. Nothing in a table of one's own can accept a packet on
// behalf of another, so there is no firewall to open.
func TestKernelNftables(t *testing.T) {
	proxytest.Run(t, proxytest.Harness{
		Mode: nftables.NewMode(nftables.Config{DropInvalid: true}),
		Dump: listTable,
	})
}

// listTable is what nft lists of the mode's table in the calling thread's namespace.
func listTable(f proxy.Family) string {
	out, err := exec.Command("nft", "list", "table", string(nft.Family(f)), nftables.Table).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
}
