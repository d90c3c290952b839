package nftables

import (
	"testing"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

func TestKernelSupportsEveryFeature(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		if err := NewMode(Config{}).Supported(t.Context(), proxy.Family(f)); err != nil {
			t.Fatal(err)
		}
		p := &probe{table: nft.NewProbe(proxy.Family(f), schema), writer: probeWriter(proxy.Family(f))}
		for _, x := range p.features() {
			if err := p.try(t.Context(), []nft.Chain{x.chain}); err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
		}
		if got := runNFT(t, "list", "ruleset"); got != "" {
			t.Errorf("left behind: %s", got)
		}
	})
}
