package healthcheck

import (
	"context"
	"time"
)

// retryInterval is how long after a failure a port is tried again. Its holder ends without any change of
// the snapshot.
const retryInterval = 5 * time.Second

// retryLater sees to it that what is missing is tried again. The caller holds p.mu.
func (p *nodePorts) retryLater(ctx context.Context) {
	if p.retrying != nil || len(p.missing()) == 0 {
		return
	}
	// What brought us here ends; the port is wanted still.
	ctx, p.retrying = context.WithCancel(context.WithoutCancel(ctx))
	p.serving.Go(func() { p.retry(ctx) })
}

// retry tries to open what is missing until nothing is, or until ctx ends.
func (p *nodePorts) retry(ctx context.Context) {
	tick := time.NewTicker(retryInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if p.retryOnce(ctx) {
			return
		}
	}
}

// retryOnce tells whether nothing is left to try.
func (p *nodePorts) retryOnce(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return true // closed
	}
	for _, s := range p.missing() {
		p.open(ctx, s.name, s.port)
	}
	if len(p.missing()) > 0 {
		return false
	}
	p.retrying()
	p.retrying = nil
	return true
}

// missing are the Services whose port could not be opened.
func (p *nodePorts) missing() []*service {
	var list []*service
	for _, s := range p.services {
		if s.failed {
			list = append(list, s)
		}
	}
	return list
}
