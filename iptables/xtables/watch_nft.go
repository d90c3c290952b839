package xtables

import (
	"context"
	"fmt"

	"github.com/sluice-proxy/sluice/nfwatch"
)

// newNFTWatch watches tables of backend nft.
func newNFTWatch(r *Runner, tables []string) (*nfwatch.Watch, error) {
	ours := part{family: r.family, tables: tables, prefix: r.cfg.Prefix}
	return nfwatch.New(nfwatch.Config{
		Touched: ours.touched,
		Ours:    r.children.Made,
		Compare: func(ctx context.Context) string { return r.compare(ctx, tables) },
	})
}

// compare gives "" if all tables hold what they should.
func (r *Runner) compare(ctx context.Context, tables []string) (first string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, table := range tables {
		reason, err := r.verify(ctx, table)
		if err != nil {
			reason = fmt.Sprintf("table %s cannot be compared: %v", table, err)
		}
		if first == "" {
			first = reason
		}
	}
	return first
}
