package kernel_test

import (
	"flag"
	"testing"

	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/nftables"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
)

var (
	seed  = flag.Uint64("seed", 1, "the first seed of random Services")
	seeds = flag.Int("seeds", 6, "how many seeds there are")
)

// TestKernelIsAsExplained sends random packets to random Services: what package explain says must be what the kernel does.
func TestKernelIsAsExplained(t *testing.T) {
	var list []uint64
	for i := range *seeds {
		list = append(list, *seed+uint64(i))
	}
	scenarios := proxytest.RandomScenarios(list...)
	t.Run("nftables", func(t *testing.T) {
		proxytest.Run(t, proxytest.Harness{
			Scenarios: scenarios, Mode: nftables.NewMode(nftables.Config{DropInvalid: true}), Dump: listTable,
		})
	})
	t.Run("iptables", func(t *testing.T) {
		proxytest.Run(t, proxytest.Harness{
			Scenarios: scenarios, Mode: iptables.NewMode(iptables.Config{Backend: xtables.NFT, DropInvalid: true}),
		})
	})
}
