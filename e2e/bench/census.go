package main

import (
	"sync"
	"time"
)

// censusPause is short against the life of a child that needs much memory.
const censusPause = 20 * time.Millisecond

// census looks at the children of a process again and again: what a child needed cannot be asked once it has ended.
// The resource usage that wait returns does not say it either, for it begins with the parent's memory.
type census struct {
	pid  int
	name string // of the parent's program: a child has it until it becomes another program
	stop chan struct{}
	done sync.WaitGroup

	strangers map[int]bool // processes that are no children; owned by the goroutine
	peak      int64        // the greatest of all children's; read after done
}

// startCensus starts a census of the children of a process. Its starter ends it.
func startCensus(pid int, name string) *census {
	c := &census{pid: pid, name: name, stop: make(chan struct{}), strangers: map[int]bool{}}
	c.done.Go(c.run)
	return c
}

func (c *census) run() {
	tick := time.NewTicker(censusPause)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
			c.look()
		}
	}
}

// look reads only what it has not seen before: there may be many processes on the machine.
func (c *census) look() {
	all, err := pids()
	if err != nil {
		return
	}
	strangers := make(map[int]bool, len(all))
	for _, pid := range all {
		if c.strangers[pid] || !c.count(pid) {
			strangers[pid] = true
		}
	}
	c.strangers = strangers
}

// count tells whether a process is a child, and counts it. One that has ended is neither here nor there.
func (c *census) count(pid int) bool {
	s, err := readStat(pid)
	if err != nil || s.parent != c.pid {
		return false
	}
	if st, err := readStatus(pid); err == nil && st.name != c.name {
		c.peak = max(c.peak, st.peak)
	}
	return true
}

// end ends the census and says how much memory its most demanding child had, in bytes.
func (c *census) end() int64 {
	close(c.stop)
	c.done.Wait()
	return c.peak
}
