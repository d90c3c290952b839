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

	// Audit, if it is not nil, runs beside each family's dataplane until ctx ends. It calls doubt, with a reason for people, when it
	// has found that the kernel does not hold what was applied; a repair follows.
	Audit func(ctx context.Context, family proxy.Family, doubt func(reason string))
}

// Loop runs the dataplanes of a node.
type Loop struct {
	cfg      Config
	families []*family
	free     chan struct{} // receives after a worker has become ready
}

// family is what the building goroutine keeps for one IP family.
type family struct {
	builder   *desired.Builder
	posted    *proxy.Snapshot
	triggers  []time.Time        // of what the builder knows and posted does not
	conflicts []desired.Conflict // as last told
	worker    *worker
}

// New makes a loop that has not begun.
func New(cfg Config) *Loop {
	return &Loop{cfg: cfg, free: make(chan struct{}, 1)}
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
			w.free, w.audit = l.free, l.cfg.Audit
			l.families = append(l.families, &family{builder: desired.NewBuilder(l.cfg.Nodes.Node(f)), worker: w})
			workers.Go(func() { w.run(ctx) })
		}
	}
	l.build(ctx)
}

// build hands out a snapshot for everything that changes.
func (l *Loop) build(ctx context.Context) {
	for {
		l.post(ctx)
		select {
		case <-ctx.Done():
			return
		case <-l.cfg.Changes.Pending():
		case <-l.cfg.Nodes.Changed():
		case <-l.free:
		}
	}
}

// post tells all families of what changed, and gives those that can apply it at once a snapshot. A snapshot costs in
// proportion to the cluster, so none is made before somebody can use it.
func (l *Loop) post(ctx context.Context) {
	batch := l.cfg.Changes.Take()
	for _, f := range l.families {
		f.builder.SetNode(l.cfg.Nodes.Node(f.worker.family))
		f.builder.Update(batch.Inputs)
		f.remember(batch.Triggers)
		if !f.worker.ready.Load() {
			continue
		}
		snapshot := f.builder.Snapshot()
		triggers := f.triggers
		f.triggers = nil
		if snapshot == f.posted {
			continue
		}
		f.posted = snapshot
		l.contested(ctx, f)
		f.worker.post(order{want: snapshot, triggers: triggers})
		klog.FromContext(ctx).V(4).Info("Built snapshot", "family", f.worker.family, "servicePorts", snapshot.Len())
	}
}

func (f *family) remember(triggers []time.Time) {
	if room := maxTriggers - len(f.triggers); room > 0 {
		f.triggers = append(f.triggers, triggers[:min(room, len(triggers))]...)
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
