package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/loop"
)

// formerAgain is when to look once more for what another mode left: an older process may have ended after this one began,
// and until then repaired its rules.
const formerAgain = 5 * time.Minute

// formerObserver removes what an earlier start in another mode left in the kernel: it would go on sending packets to the
// endpoints of its time. That comes after this mode serves everything, so that no packet finds neither.
type formerObserver struct {
	deaf
	others []former

	mu      sync.Mutex
	missing []proxy.Family // that this mode does not serve yet
}

// former is another mode.
type former struct {
	name    string
	cleanup func(context.Context) error
}

// newFormerObserver is for a start in a mode. Connections through IPVS end with it, so that mode is left to whoever drains
// the node.
func newFormerObserver(ctx context.Context, chosen string, serves []proxy.Family) *formerObserver {
	o := &formerObserver{missing: slices.Clone(serves)}
	for _, m := range modes {
		if m.name != chosen && m.outlived {
			o.others = append(o.others, former{m.name, m.make(ctx, ModeConfig{}).Cleanup})
		}
	}
	return o
}

// Applied implements loop.Observer.
func (o *formerObserver) Applied(ctx context.Context, a loop.Applied) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.Index(o.missing, a.Family)
	if i < 0 {
		return
	}
	if o.missing = slices.Delete(o.missing, i, i+1); len(o.missing) == 0 {
		time.AfterFunc(0, func() { o.remove(ctx) })
		time.AfterFunc(formerAgain, func() { o.remove(ctx) })
	}
}

// remove goes on after an error: the next time may be luckier.
func (o *formerObserver) remove(ctx context.Context) {
	for _, other := range o.others {
		if ctx.Err() != nil {
			return
		}
		if err := other.cleanup(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Rules of another mode not removed", "mode", other.name)
		}
	}
}
