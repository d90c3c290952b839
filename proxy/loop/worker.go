package loop

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

// maxTriggers bounds what is remembered while the kernel refuses everything.
const maxTriggers = 10_000

// order asks for a snapshot. It replaces every earlier order.
type order struct {
	want     *proxy.Snapshot
	triggers []time.Time
}

// worker owns the dataplane of one family. Only post and doubt may be called from other goroutines.
type worker struct {
	family    proxy.Family
	dataplane proxy.Dataplane
	observers []Observer
	audit     func(ctx context.Context, family proxy.Family, doubt func(reason string)) // nil: there is none

	// ready asks for a snapshot if there is a newer one: it would be applied at once, or by the next try after a failure. Free
	// receives when that has become true.
	ready atomic.Bool
	free  chan<- struct{}

	mailbox chan order  // holds the newest order
	doubts  chan string // holds one reason; a second says nothing that the first did not

	schedule schedule
	want     *proxy.Snapshot
	applied  *proxy.Snapshot
	triggers []time.Time // of all that is in want and not in applied
}

func newWorker(f proxy.Family, dataplane proxy.Dataplane, minInterval time.Duration, observers []Observer) *worker {
	w := &worker{
		family:    f,
		dataplane: dataplane,
		observers: observers,
		mailbox:   make(chan order, 1),
		doubts:    make(chan string, 1),
		schedule:  schedule{minInterval: minInterval},
	}
	w.ready.Store(true)
	return w
}

// post replaces the order that waits, if any. It never blocks, but only one goroutine may call it.
func (w *worker) post(o order) {
	select {
	case missed := <-w.mailbox:
		o.triggers = slices.Concat(missed.triggers, o.triggers)
	default:
	}
	w.ready.Store(false)
	w.queued() // before the worker can say that it is done
	w.mailbox <- o
}

// doubt says that the kernel may not hold what was applied. It never blocks.
func (w *worker) doubt(reason string) {
	select {
	case w.doubts <- reason:
	default:
	}
}

func (w *worker) run(ctx context.Context) {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithValues("family", w.family))
	var watch sync.WaitGroup
	defer watch.Wait()
	if watcher, ok := w.dataplane.(proxy.Watcher); ok {
		watch.Go(func() { w.watch(ctx, watcher) })
	}
	if w.audit != nil {
		watch.Go(func() { w.audit(ctx, w.family, w.doubt) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-w.mailbox:
			w.accept(o)
		case reason := <-w.doubts:
			w.distrust(ctx, reason)
		case <-w.alarm():
			w.apply(ctx)
		case <-w.rested():
			w.setReady()
		}
	}
}

func (w *worker) setReady() {
	w.ready.Store(true)
	select {
	case w.free <- struct{}{}:
	default:
	}
}

// rested receives when the worker is about to be ready: it waits for no order and could apply one at once.
func (w *worker) rested() <-chan time.Time {
	if w.ready.Load() || w.schedule.changed || len(w.mailbox) > 0 {
		return nil
	}
	now := time.Now()
	return time.After(w.schedule.notBefore(now).Sub(now))
}

// alarm receives when the next Apply is due. A new order or doubt that is there already goes first.
func (w *worker) alarm() <-chan time.Time {
	now := time.Now()
	due, ok := w.schedule.due(now)
	if !ok || len(w.mailbox) > 0 || len(w.doubts) > 0 {
		return nil
	}
	return time.After(due.Sub(now))
}

func (w *worker) accept(o order) {
	w.want = o.want
	if room := maxTriggers - len(w.triggers); room > 0 {
		w.triggers = append(w.triggers, o.triggers[:min(room, len(o.triggers))]...)
	}
	w.schedule.changed = true
	w.ready.Store(false) // rested may not have seen the order in the mailbox
	w.queued()           // the Apply that has just ended may have said that nothing waits
}

// distrust prepares a repair. Before the first Apply there is nothing to repair, and a repair that
// waits serves this doubt too.
func (w *worker) distrust(ctx context.Context, reason string) {
	if !w.schedule.started || !w.schedule.repair.IsZero() {
		return
	}
	klog.FromContext(ctx).Info("Kernel state is in doubt", "reason", reason)
	w.dataplane.Resync(reason)
	w.schedule.doubt(time.Now())
	for _, o := range w.observers {
		o.Doubted(w.family, reason)
	}
	w.queued()
}

// apply brings the newest snapshot to the kernel and says how that went.
func (w *worker) apply(ctx context.Context) {
	began := time.Now()
	if w.want == w.applied && w.schedule.repair.IsZero() {
		w.queued() // a call that the dataplane asked for may hang like any other
	}
	w.schedule.begin(began)
	report, err := w.dataplane.Apply(ctx, w.want)
	ended := time.Now()
	took := ended.Sub(began)
	log := klog.FromContext(ctx)
	if err != nil {
		retry := w.schedule.failed(ended)
		w.setReady() // the next try takes the newest snapshot
		if ctx.Err() != nil {
			return // we were told to stop; that is no failure
		}
		log.Error(err, "Snapshot not applied", "took", took, "retryIn", retry)
		for _, o := range w.observers {
			o.Failed(ctx, Failed{Family: w.family, Err: err, Report: report, Took: took})
		}
		return
	}
	w.schedule.succeeded(ended, report.Again)
	a := Applied{Family: w.family, Old: w.applied, New: w.want, Report: report, Took: took, Triggers: w.triggers}
	w.applied, w.triggers = w.want, nil
	for _, o := range w.observers {
		o.Applied(ctx, a)
	}
	// Whoever reads this can rely on it that all observers know.
	log.V(2).Info("Applied snapshot", "servicePorts", w.applied.Len(), "full", report.Full, "setAside", len(report.SetAside), "took", took)
}

// watch keeps the dataplane's watcher running. Whatever happens while it does not run goes unseen, so
// its end is a reason for doubt.
func (w *worker) watch(ctx context.Context, watcher proxy.Watcher) {
	var pause backoff
	for {
		err := watcher.Watch(ctx, w.doubt)
		if ctx.Err() != nil {
			return
		}
		klog.FromContext(ctx).Error(err, "Watching the kernel ended", "retryIn", pause.next())
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.last):
		}
		w.doubt(Unseen)
	}
}

func (w *worker) queued() {
	for _, o := range w.observers {
		o.Queued(w.family)
	}
}
