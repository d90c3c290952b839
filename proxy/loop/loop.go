package loop

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/track"
)

// Changes is where changed Services come from; a track.Tracker is one.
type Changes interface {
	// Pending receives whenever Take would return something.
	Pending() <-chan struct{}
	Take() track.Batch
}

// Nodes are the facts of this node; a nodeinfo.Info is one.
type Nodes interface {
	// Changed receives after Node has begun to return another value for some family.
	Changed() <-chan struct{}

	// Node is never nil for a family of the loop.
	Node(family proxy.Family) *proxy.Node
}

// Config is what a Loop needs. All fields but Observers and MinInterval are required.
type Config struct {
	Changes Changes
	Nodes   Nodes

	// Synced is closed once Changes has been told of every object that exists. Nothing is applied
	// before, so that a list read in halves never takes away what an earlier process left.
	Synced <-chan struct{}

	// Dataplanes has an entry for each family to serve.
	Dataplanes map[proxy.Family]proxy.Dataplane

	// MinInterval is the least time between the end of one Apply of a family and the start of the
	// next one for a change.
	MinInterval time.Duration

	// Observers are told of everything, in this order.
	Observers []Observer
}

// Loop runs the dataplanes of a node.
type Loop struct {
	cfg      Config
	families []*family
}

// family is what the building goroutine keeps for one IP family.
type family struct {
	builder   *desired.Builder
	posted    *proxy.Snapshot
	conflicts []desired.Conflict // as last told
	worker    *worker
}

// New makes a loop that has not begun.
func New(cfg Config) *Loop {
	return &Loop{cfg: cfg}
}

// Run serves until ctx ends, and returns when everything that it started has ended. It leaves the
// kernel as it is. It may be called once.
func (l *Loop) Run(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-l.cfg.Synced:
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	for _, f := range proxy.Families {
		if dataplane := l.cfg.Dataplanes[f]; dataplane != nil {
			w := newWorker(f, dataplane, l.cfg.MinInterval, l.cfg.Observers)
			l.families = append(l.families, &family{builder: desired.NewBuilder(l.cfg.Nodes.Node(f)), worker: w})
			workers.Go(func() { w.run(ctx) })
		}
	}
	l.build(ctx)
}

// build hands out a snapshot for everything that changes. Under a stream of changes it spends a
// tenth of its time at most, but never waits for longer than the workers do anyway.
func (l *Loop) build(ctx context.Context) {
	for {
		began := time.Now()
		l.post(ctx)
		pause := min(9*time.Since(began), l.cfg.MinInterval)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		select {
		case <-ctx.Done():
			return
		case <-l.cfg.Changes.Pending():
		case <-l.cfg.Nodes.Changed():
		}
	}
}

// post builds what there is to build and gives it to the families that it concerns.
func (l *Loop) post(ctx context.Context) {
	batch := l.cfg.Changes.Take()
	for _, f := range l.families {
		f.builder.SetNode(l.cfg.Nodes.Node(f.worker.family))
		f.builder.Update(batch.Inputs)
		snapshot := f.builder.Snapshot()
		if snapshot == f.posted {
			continue
		}
		f.posted = snapshot
		l.contested(ctx, f)
		f.worker.post(order{want: snapshot, triggers: batch.Triggers})
		klog.FromContext(ctx).V(4).Info("Built snapshot", "family", f.worker.family, "servicePorts", snapshot.Len(),
			"inputs", len(batch.Inputs))
	}
}

// contested tells the observers of conflicts that are new or gone.
func (l *Loop) contested(ctx context.Context, f *family) {
	conflicts := f.builder.Conflicts()
	if slices.EqualFunc(conflicts, f.conflicts, sameConflict) {
		return
	}
	f.conflicts = conflicts
	for _, o := range l.cfg.Observers {
		o.Contested(ctx, f.worker.family, conflicts)
	}
}

func sameConflict(a, b desired.Conflict) bool {
	return a.Frontend == b.Frontend && a.Owner == b.Owner && slices.Equal(a.Losers, b.Losers)
}
