package nftables

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
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

// New implements proxy.Mode.
func (m mode) New(family proxy.Family) (proxy.Dataplane, error) {
	table := nft.NewRunner(family, schema)
	d := newDataplane(m.cfg, family, table)
	d.watch, d.forms = table.Watch, table.Forms()
	return d, nil
}

// tables are all that the mode has in the kernel.
func tables() []*nft.Runner {
	var all []*nft.Runner
	for _, f := range proxy.Families {
		all = append(all, nft.NewRunner(f, schema), nft.NewProbe(f, schema))
	}
	return all
}

// Yield implements proxy.Yielder: IPVS serves packets that are not translated, which the rules that refuse would drop.
func (mode) Yield(ctx context.Context) error {
	var errs []error
	for _, f := range proxy.Families {
		if err := refuseNothing(ctx, nft.NewRunner(f, schema)); err != nil {
			errs = append(errs, fmt.Errorf("let another mode serve %v: %w", f, err))
		}
	}
	return errors.Join(errs...)
}

// refuseNothing takes the rules from the chains that refuse.
func refuseNothing(ctx context.Context, table *nft.Runner) error {
	state, err := table.Find(ctx)
	if err != nil || state == nil {
		return err
	}
	tx := table.NewTransaction()
	for _, name := range []string{refuse, refuseNodePorts, refuseClusterIPs} {
		if len(state.Chains[name]) > 0 {
			tx.Flush(&knftables.Chain{Name: name})
		}
	}
	if tx.NumOperations() == 0 {
		return nil
	}
	return table.Run(ctx, tx)
}

// Traces implements proxy.Mode.
func (mode) Traces(context.Context) ([]string, error) { return nft.Traces(tables()) }

// Cleanup implements proxy.Mode.
func (mode) Cleanup(ctx context.Context) error { return nft.RemoveAll(ctx, tables()) }
