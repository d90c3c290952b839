package iptables

import (
	"context"

	"github.com/sluice-proxy/sluice/iptables/xtables"
)

// tally counts what is restored.
type tally struct {
	xtables.Interface
	bytes, refusals, transactions int
}

// Restore implements xtables.Interface.
func (t *tally) Restore(ctx context.Context, input []byte) error {
	t.bytes += len(input)
	t.transactions++
	err := t.Interface.Restore(ctx, input)
	if err != nil {
		t.refusals++
	}
	return err
}

// reset begins to count anew.
func (t *tally) reset() { t.bytes, t.refusals, t.transactions = 0, 0, 0 }
