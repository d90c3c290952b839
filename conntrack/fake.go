package conntrack

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/sluice-proxy/sluice/proxy"
)

// Fake is a table in memory for tests. It refuses what the kernel refuses.
type Fake struct {
	// Fail, when not nil, is asked before each operation ("list", and "delete" once for each
	// flow); its error becomes the operation's result. ErrInterrupted as the answer to "list"
	// hides every second flow.
	Fail func(operation string) error

	mu       sync.Mutex
	flows    map[Flow]struct{}
	nextID   uint32
	listings int
}

// Add puts flows in the table and returns them with their IDs. A flow that is there already, with
// the same original tuple and zone, is replaced.
func (t *Fake) Add(flows ...Flow) []Flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flows == nil {
		t.flows = map[Flow]struct{}{}
	}
	added := make([]Flow, 0, len(flows))
	for _, f := range flows {
		maps.DeleteFunc(t.flows, func(o Flow, _ struct{}) bool { return sameKey(o, f) })
		t.nextID++
		f.ID = t.nextID
		t.flows[f] = struct{}{}
		added = append(added, f)
	}
	return added
}

// All returns the flows that are in the table, sorted.
func (t *Fake) All() []Flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Keys(t.flows), func(a, b Flow) int { return int(a.ID) - int(b.ID) })
}

// Listings is how often the table was listed.
func (t *Fake) Listings() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.listings
}

// Flows implements Table.
func (t *Fake) Flows(ctx context.Context, family proxy.Family) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		err := t.fail(ctx, "list")
		if err != nil && !errors.Is(err, ErrInterrupted) {
			yield(Flow{}, err)
			return
		}
		t.mu.Lock()
		t.listings++
		t.mu.Unlock()
		for i, f := range t.All() {
			if hidden := err != nil && i%2 == 1; hidden || !family.Has(f.Original.Dst.Addr()) {
				continue
			}
			if !yield(f, nil) {
				return
			}
		}
		if err != nil {
			yield(Flow{}, err)
		}
	}
}

// Delete implements Table.
func (t *Fake) Delete(ctx context.Context, _ proxy.Family, flows []Flow) (int, error) {
	deleted := 0
	for _, f := range flows {
		if err := t.fail(ctx, "delete"); err != nil {
			return deleted, err
		}
		t.mu.Lock()
		if _, is := t.flows[f]; is {
			delete(t.flows, f)
			deleted++
		}
		t.mu.Unlock()
	}
	return deleted, nil
}

func (t *Fake) fail(ctx context.Context, operation string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.Fail == nil {
		return nil
	}
	return t.Fail(operation)
}

// sameKey tells whether the kernel has room for only one of two flows.
func sameKey(a, b Flow) bool {
	return a.Original == b.Original && a.Zone == b.Zone && a.OriginalZone == b.OriginalZone
}
