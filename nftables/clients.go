package nftables

import (
	"sync"
	"time"
)

// clients counts those that session affinity remembers, for whoever asks, and as seldom as the kernel's way to do it demands.
// It is safe for concurrent use.
type clients struct {
	count func(set string) (n int, cheap bool, err error)
	now   func() time.Time

	mu   sync.Mutex
	next time.Time // the last count is good until then
	last int
	err  error
}

// How long a count is good for. Where the kernel lists a map of a million clients to count it, that takes about a second of a
// processor.
const (
	freshCheap  = 5 * time.Second
	freshCostly = 5 * time.Minute
)

// get is how many there are, and how many there can be.
func (c *clients) get() (n, limit int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now().Before(c.next) {
		return c.last, int(affinity.Size), c.err
	}
	var cheap bool
	c.last, cheap, c.err = c.count(affinity.Name)
	fresh := freshCostly
	if cheap || c.err != nil {
		fresh = freshCheap
	}
	c.next = c.now().Add(fresh)
	return c.last, int(affinity.Size), c.err
}
