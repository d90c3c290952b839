package main

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// A proxy that takes less than calmCPU in calmWindow is calm. The window is longer than the pause that
// either proxy makes after a change of rules.
const (
	calmWindow = 1500 * time.Millisecond
	calmCPU    = calmWindow / 20
)

// timeChanges makes changes one by one and times each.
func (t *trial) timeChanges(ctx context.Context, r *result) (err error) {
	r.changesCPU, err = t.spent(ctx, func() error {
		return paced(ctx, t.cfg.Changes, t.cfg.Pause, func() error {
			ch := t.cluster.nextChange()
			begin := time.Now()
			wrote, err := t.cluster.write(ctx, ch)
			if err != nil {
				return err
			}
			if err := t.arrives(ctx, ch); err != nil {
				return err
			}
			r.changes = append(r.changes, time.Since(begin))
			r.writes = append(r.writes, wrote)
			return nil
		})
	})
	return err
}

// arrives waits until a new endpoint gets traffic.
func (t *trial) arrives(ctx context.Context, ch change) error {
	return t.await(ctx, at(ch.service.vip, servicePort), changePace, func(o lab.Outcome) bool {
		return o.Backend == at(ch.added, targetPort)
	})
}

// series makes n changes, so many a second, and says how much CPU time they took.
func (t *trial) series(ctx context.Context, n int, rate float64) (time.Duration, error) {
	return t.spent(ctx, func() error {
		_, err := t.many(ctx, n, rate, 0)
		return err
	})
}

// many makes n changes, so many a second, and waits until the last one shows. It times the first and, of the others, each that
// comes so many after one that was timed; 0 times none.
func (t *trial) many(ctx context.Context, n int, rate float64, every int) (took []time.Duration, err error) {
	var last change
	var lock sync.Mutex
	made := 0
	group, writing := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	err = paced(writing, n, time.Duration(float64(time.Second)/rate), func() error {
		ch := t.cluster.nextChange()
		last = ch
		timed := every > 0 && made%every == 0
		made++
		group.Go(func() error {
			begin := time.Now()
			if _, err := t.cluster.write(writing, ch); err != nil || !timed {
				return err
			}
			if err := t.arrives(writing, ch); err != nil {
				return err
			}
			lock.Lock()
			defer lock.Unlock()
			took = append(took, time.Since(begin))
			return nil
		})
		return nil
	})
	if failed := group.Wait(); failed != nil {
		return nil, failed // which is why it was not paced to the end
	}
	if err != nil {
		return nil, err
	}
	return took, t.arrives(ctx, last)
}

// idle says how much CPU time the proxy takes while nothing happens.
func (t *trial) idle(ctx context.Context) (time.Duration, error) {
	before, err := cpu(t.proxy.PID())
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(t.cfg.Idle):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	after, err := cpu(t.proxy.PID())
	return after - before, err
}

// spent is the CPU time of the proxy and its children while something is done, and until they are calm.
func (t *trial) spent(ctx context.Context, do func() error) (time.Duration, error) {
	before, err := cpu(t.proxy.PID())
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	if err := t.calm(ctx); err != nil {
		return 0, err
	}
	after, err := cpu(t.proxy.PID())
	return after - before, err
}

// paced does something n times, each time that long after the time before, or later if it takes longer.
func paced(ctx context.Context, n int, pause time.Duration, do func() error) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := range n {
		if i > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// calm waits until the proxy has nothing to do. What it does for a change may outlast what packets show.
func (t *trial) calm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(calmWindow)
	defer tick.Stop()
	before, err := cpu(t.proxy.PID())
	for err == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var now time.Duration
		if now, err = cpu(t.proxy.PID()); err == nil && now-before < calmCPU {
			return nil
		}
		before = now
	}
	return err
}
