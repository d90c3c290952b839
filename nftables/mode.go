package nftables

import (
	"context"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nftables/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Name is what selects the mode.
const Name = "nftables"

// Config says how the mode works. The zero value is usable.
type Config struct {
	// DropInvalid drops forwarded packets that connection tracking cannot place. Without it a late
	// segment can pass untranslated and end a connection; with the kernel's tcp_be_liberal, such
	// segments are not invalid and may pass.
	DropInvalid bool
}

// NewMode makes the mode. It touches nothing yet.
func NewMode(cfg Config) proxy.Mode { return mode{cfg} }

type mode struct{ cfg Config }

// Name implements proxy.Mode.
func (mode) Name() string { return Name }

// Supported implements proxy.Mode.
func (m mode) Supported(ctx context.Context, family proxy.Family) error { return nil }

// New implements proxy.Mode.
func (m mode) New(family proxy.Family) (proxy.Dataplane, error) {
	table := nft.NewRunner(family, schema)
	return newDataplane(m.cfg, family, table), nil
}

// Cleanup implements proxy.Mode.
func (mode) Cleanup(ctx context.Context) error {
	for _, f := range proxy.Families {
		table := nft.NewRunner(f, schema)
		tx := table.NewTransaction()
		vanish(tx)
		if err := table.Run(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

var _ = knftables.IPv4Family
