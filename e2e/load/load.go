// Package load makes connections all the time, so that a test can see whether one is lost while
// something changes.
package load

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	usual = 4 // clients
	// pause bounds the load: each client makes at most 250 connections a second.
	pause = 4 * time.Millisecond
)

// Counts says how connections ended.
type Counts struct {
	Answers  map[string]int // by the name of the server
	Failures []lab.Outcome  // all that were not answered
}

// Total is the number of connections.
func (c Counts) Total() int {
	n := len(c.Failures)
	for _, answers := range c.Answers {
		n += answers
	}
	return n
}

// String lists the servers by name, and the first failure.
func (c Counts) String() string {
	var words []string
	for _, server := range slices.Sorted(maps.Keys(c.Answers)) {
		words = append(words, fmt.Sprintf("%s %d", server, c.Answers[server]))
	}
	if n := len(c.Failures); n > 0 {
		words = append(words, fmt.Sprintf("failed %d: %v", n, c.Failures[0]))
	}
	return strings.Join(words, "  ")
}

// Send makes n connections, one after the other.
func Send(from *lab.Host, p lab.Probe, n int) Counts {
	c := Counts{Answers: map[string]int{}}
	for range n {
		c.add(from.Probe(p))
	}
	return c
}

func (c *Counts) add(o lab.Outcome) {
	if o.Result == lab.Answered {
		c.Answers[o.Server]++
	} else {
		c.Failures = append(c.Failures, o)
	}
}

// Load is a running load. It is safe for concurrent use.
type Load struct {
	stop chan struct{}
	done sync.WaitGroup

	mu     sync.Mutex
	counts Counts
	absent map[string]int // by server: answers in a row that came from others
}

// Start starts a load of several clients on one host.
func Start(from *lab.Host, p lab.Probe) *Load { return StartOf(from, p, usual) }

// StartOf is Start with so many clients.
func StartOf(from *lab.Host, p lab.Probe, clients int) *Load {
	l := &Load{stop: make(chan struct{}), counts: Counts{Answers: map[string]int{}}, absent: map[string]int{}}
	for range clients {
		l.done.Go(func() { l.run(from, p) })
	}
	return l
}

func (l *Load) run(from *lab.Host, p lab.Probe) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			l.add(from.Probe(p))
		}
	}
}

func (l *Load) add(o lab.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.add(o)
	for server := range l.counts.Answers {
		l.absent[server]++
	}
	l.absent[o.Server] = 0
}

// Take returns the counts since the last Take.
func (l *Load) Take() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	l.counts = Counts{Answers: map[string]int{}}
	for server := range c.Answers {
		l.counts.Answers[server] = 0
	}
	return c
}

// Total is the number of connections since the last Take.
func (l *Load) Total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts.Total()
}

// Absent is the number of connections in a row that a server did not get.
func (l *Load) Absent(server string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.absent[server]
}

// Stop ends the load and returns the counts since the last Take.
func (l *Load) Stop() Counts {
	close(l.stop)
	l.done.Wait()
	return l.Take()
}

// Seen tells whether a server ever answered.
func (l *Load) Seen(server string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, seen := l.counts.Answers[server]
	return seen
}
