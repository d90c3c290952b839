package loop

import (
	"context"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
)

// Unseen is the reason of a doubt that nothing speaks for but that nobody was watching for a while. All others name a change
// that somebody else made.
const Unseen = "changes may have gone unseen"

// Observer is told what becomes of snapshots. Its methods are called from one goroutine per family
// and from that of the builder, so they must be safe for concurrent use. The next Apply of the family waits
// for Applied and Failed.
type Observer interface {
	// Queued says that the family waits for an Apply: something changed or the kernel's state is in
	// doubt. It may be called several times for one Apply.
	Queued(family proxy.Family)

	// Contested lists the frontends that several ServicePorts claim, whenever the list changes.
	Contested(ctx context.Context, family proxy.Family, conflicts []desired.Conflict)

	// Doubted says that somebody else may have changed what was applied. A repair follows. The reason is for people, except
	// Unseen.
	Doubted(family proxy.Family, reason string)

	// Applied says that the kernel serves a snapshot.
	Applied(ctx context.Context, a Applied)

	// Failed says that an Apply returned an error. Another one follows.
	Failed(ctx context.Context, f Failed)
}

// Applied is an Apply that succeeded.
type Applied struct {
	Family proxy.Family
	Old    *proxy.Snapshot // what the last successful Apply was given; nil at first
	New    *proxy.Snapshot
	Report proxy.Report
	Took   time.Duration

	// Triggers are the times at which the changes that this Apply brought to the kernel were made,
	// as far as their objects tell.
	Triggers []time.Time
}

// Failed is an Apply that did not succeed.
type Failed struct {
	Family proxy.Family
	Err    error
	Report proxy.Report // what is known
	Took   time.Duration
}
