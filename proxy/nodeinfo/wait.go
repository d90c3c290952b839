package nodeinfo

import (
	"context"
	"fmt"
	"time"

	"k8s.io/klog/v2"
)

const (
	ipWait      = 30 * time.Second // a cloud provider may set the addresses after kubelet has started
	podCIDRWait = 5 * time.Minute
)

// WaitForNode waits until the Node object has told what rules cannot do without. A Node without
// addresses is waited for, but not for ever: only the keyword "primary" and source ranges need them. In
// the detect mode NodeCIDR a Node without podCIDRs is an error. Patience begins to run out when listed is closed,
// when the API server has told whether there is a Node at all: while it is away nothing can be said of the Node.
func (i *Info) WaitForNode(ctx context.Context, listed <-chan struct{}) error {
	select {
	case <-listed:
	case <-ctx.Done():
		return ctx.Err()
	}
	hasIP := func() bool { return i.ips[0].IsValid() || i.ips[1].IsValid() }
	if !i.wait(ctx, ipWait, hasIP) && ctx.Err() == nil {
		klog.FromContext(ctx).Error(nil, "Node has no IP address, continuing without", "node", i.cfg.Name)
	}
	hasPodCIDRs := func() bool { return i.cfg.PodDetector.Mode != NodeCIDR || len(i.podCIDRs) > 0 }
	if !i.wait(ctx, podCIDRWait, hasPodCIDRs) && ctx.Err() == nil {
		return fmt.Errorf("node %q has no podCIDRs after %v, and detect-local-mode NodeCIDR needs them; "+
			"is this the name of a Node, and does something allocate podCIDRs?", i.cfg.Name, podCIDRWait)
	}
	return ctx.Err()
}

// wait tells whether known, called with the lock held, became true in time.
func (i *Info) wait(ctx context.Context, limit time.Duration, known func() bool) bool {
	expired := time.After(limit)
	for {
		i.lock.Lock()
		learned, ok := i.learned, known()
		i.lock.Unlock()
		if ok {
			return true
		}
		select {
		case <-learned:
		case <-expired:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
