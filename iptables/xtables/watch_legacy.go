package xtables

import (
	"context"
	"fmt"
	"time"
)

// legacyWatch compares the sizes of tables, at intervals, with those after our last write.
type legacyWatch struct {
	runner *Runner
	tables []string
}

func newLegacyWatch(r *Runner, tables []string) (*legacyWatch, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := openSizes(r.family, tables, r.ledger)
	if err != nil {
		return nil, fmt.Errorf("watch tables of backend %s: %w", Legacy, err)
	}
	r.sizes = s
	return &legacyWatch{runner: r, tables: tables}, nil
}

func (w *legacyWatch) Run(ctx context.Context, doubt func(string)) error {
	defer w.close()
	ticks := time.NewTicker(w.runner.cfg.ProbeInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
		for _, table := range w.tables {
			if reason := w.probe(ctx, table); reason != "" {
				doubt(reason)
			}
		}
	}
}

func (w *legacyWatch) close() {
	w.runner.mu.Lock()
	defer w.runner.mu.Unlock()
	_ = w.runner.sizes.close()
	w.runner.sizes = nil
}

// probe gives "" if nobody else touched our part of a table, or if that cannot be told yet: then the size
// is not taken over, and the next tick tries again.
func (w *legacyWatch) probe(ctx context.Context, table string) string {
	w.runner.mu.Lock()
	defer w.runner.mu.Unlock()
	sizes := w.runner.sizes
	now, err := sizes.of(table)
	if err != nil || sizes.last[table] == now {
		return ""
	}
	reason, err := w.runner.verify(ctx, table)
	if err != nil {
		return ""
	}
	// The size from before the comparison: a change after it shows at the next tick.
	sizes.take(table, now, w.runner.ledger)
	return reason
}
