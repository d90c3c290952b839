package xtables

import "context"

// Watch calls doubt, from the calling goroutine, whenever somebody else changed our chains in the tables, or
// the jumps to them, with a reason that names the culprit if the kernel tells. Our own writes and changes
// of others to their own chains raise none. It returns when ctx ends, with nil, or when the kernel cannot
// be watched.
//
// It may run beside the other methods, which it makes wait while it compares tables. Changes from before the call
// are not noticed. Its sockets belong to the network namespace of the calling thread.
//
// Backend nft is told of every commit by the kernel. Backend legacy is asked for the number of entries and
// the size of each table, in constant time: rules that were exchanged for others of equal size stay
// unnoticed there.
func (r *Runner) Watch(ctx context.Context, tables []string, doubt func(reason string)) error {
	w, err := r.newWatch(tables)
	if err != nil {
		return err
	}
	return w.Run(ctx, doubt)
}

// watch is a Watch that has begun: what happens after newWatch is noticed by Run.
type watch interface {
	Run(ctx context.Context, doubt func(reason string)) error
}

func (r *Runner) newWatch(tables []string) (watch, error) {
	if r.cfg.Backend == Legacy {
		return newLegacyWatch(r, tables)
	}
	return newNFTWatch(r, tables)
}

// verify compares a table with the ledger. It wants r.mu, and gives "" if they agree.
func (r *Runner) verify(ctx context.Context, table string) (string, error) {
	actual, err := r.save(ctx, table, r.cfg.Prefix)
	if err != nil {
		return "", err
	}
	return r.ledger.compare(table, actual), nil
}
