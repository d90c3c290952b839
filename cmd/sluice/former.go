package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/loop"
)

const (
	// formerAgain is when to look once more for what another mode left: an older process may have ended after this one
	// began, and until then repaired its rules.
	formerAgain = 5 * time.Minute

	// retireAgain is how often connections are looked at that end with the rules of another mode.
	retireAgain = 5 * time.Second
)

// formers are the modes that are not chosen: an earlier start in one of them may have left something in the kernel, which
// would go on sending packets to the endpoints of its time.
func formers(ctx context.Context, chosen string, cfg *config.Config) []proxy.Mode {
	var list []proxy.Mode
	for _, m := range modes {
		if m.name != chosen {
			list = append(list, m.make(ctx, ModeConfig{IPVS: cfg.IPVS}))
		}
	}
	return list
}

// makeRoom lets the chosen mode serve beside what other modes left, before it serves anything. That it cannot be done
// costs some connections, and is no reason to serve none.
func makeRoom(ctx context.Context, others []proxy.Mode) {
	for _, m := range others {
		y, ok := m.(proxy.Yielder)
		if !ok {
			continue
		}
		if err := y.Yield(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Rules of another mode may be in the way", "mode", m.Name())
		}
	}
}

// formerObserver removes what other modes left after this one serves everything, so that no packet finds neither.
type formerObserver struct {
	deaf
	others []proxy.Mode

	mu      sync.Mutex
	missing []proxy.Family // that this mode does not serve yet
}

// newFormerObserver is for a start that serves some families.
func newFormerObserver(others []proxy.Mode, serves []proxy.Family) *formerObserver {
	return &formerObserver{others: others, missing: slices.Clone(serves)}
}

// Applied implements loop.Observer.
func (o *formerObserver) Applied(ctx context.Context, a loop.Applied) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.Index(o.missing, a.Family)
	if i < 0 {
		return
	}
	if o.missing = slices.Delete(o.missing, i, i+1); len(o.missing) > 0 {
		return
	}
	for _, m := range o.others {
		time.AfterFunc(0, func() { remove(ctx, m, time.Now(), false) })
	}
}

// remove removes what a mode left, at once or, where connections would end with it, by and by. It goes on after an
// error: the next time may be luckier.
func remove(ctx context.Context, m proxy.Mode, since time.Time, last bool) {
	if ctx.Err() != nil {
		return
	}
	left := false
	var err error
	if r, ok := m.(proxy.Retirer); ok {
		left, err = r.Retire(ctx, since)
	} else {
		err = m.Cleanup(ctx)
	}
	if err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Rules of another mode not removed", "mode", m.Name())
	}
	switch {
	case left:
		time.AfterFunc(retireAgain, func() { remove(ctx, m, since, last) })
	case !last:
		time.AfterFunc(formerAgain, func() { remove(ctx, m, time.Now(), true) })
	}
}
