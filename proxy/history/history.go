package history

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/loop"
)

const (
	// kept is how many syncs are remembered, of both families together.
	kept = 1024

	// longest is how much is remembered of an error's text: what tools say may be as long as what they were given.
	longest = 1024
)

// Sync is an attempt to bring a snapshot to the kernel.
type Sync struct {
	Number uint64    `json:"number"` // counts up from 1
	Family string    `json:"family"` // as a proxy.Family says it
	Ended  time.Time `json:"ended"`

	Took time.Duration `json:"tookNanoseconds"`
	// Delay is from the oldest change of the cluster that this brought to the kernel until then; 0 where objects do not tell.
	Delay time.Duration `json:"delayNanoseconds,omitempty"`

	Full         bool   `json:"full,omitempty"` // everything was written, not only a difference
	ServicePorts int    `json:"servicePorts"`
	Objects      int    `json:"objects"` // of the mode in the kernel
	Writes       int    `json:"writes"`  // of them, by this attempt
	Bytes        int    `json:"bytes"`
	Transactions int    `json:"transactions"`
	SetAside     int    `json:"setAside,omitempty"`
	Error        string `json:"error,omitempty"` // empty: it succeeded
}

// Doubt is that somebody else may have changed what was applied.
type Doubt struct {
	At       time.Time `json:"at"`
	Reason   string    `json:"reason"`
	Repaired time.Time `json:"repaired,omitzero"` // zero: not yet
}

// Kernel is what is known about the state of a family in the kernel.
type Kernel struct {
	Applied  time.Time `json:"applied,omitzero"`  // the last sync that succeeded; zero: none has
	Compared time.Time `json:"compared,omitzero"` // the last one that did not rely on what earlier ones recorded
	Waiting  time.Time `json:"waiting,omitzero"`  // since when a change or a repair waits; zero: none does

	// Failing is since when no attempt succeeds, and Error why; zero if the last one did.
	Failing time.Time `json:"failing,omitzero"`
	Error   string    `json:"error,omitempty"`

	Audit *Audit `json:"lastAudit,omitempty"`

	Doubts int    `json:"doubts"` // since the start
	Last   *Doubt `json:"lastDoubt,omitempty"`
}

// Audit is a comparison of the kernel with what was applied. What it found is mended.
type Audit struct {
	At          time.Time `json:"at"`
	Differences int       `json:"differences"`
	Error       string    `json:"error,omitempty"` // why it failed; empty: it did not
}

// History is an observer of the loop. It is safe for concurrent use; nobody holds its lock for longer than it takes to copy
// what is remembered.
type History struct {
	now     func() time.Time
	started time.Time

	mu        sync.Mutex
	ring      []Sync // of which number n stands at (n-1) % kept
	last      uint64 // number of the newest
	kernel    [len(proxy.Families)]Kernel
	conflicts [len(proxy.Families)][]desired.Conflict
}

// New makes a History of nothing, by the clock that it is given.
func New(now func() time.Time) *History { return &History{now: now, started: now()} }

// Started is when the history begins.
func (h *History) Started() time.Time { return h.started }

// Since copies the syncs with higher numbers than that, the oldest first, as far as they are remembered.
func (h *History) Since(number uint64) []Sync {
	h.mu.Lock()
	defer h.mu.Unlock()
	number = max(number, h.last-uint64(len(h.ring)))
	syncs := []Sync{}
	for number < h.last {
		syncs = append(syncs, h.ring[number%kept])
		number++
	}
	return syncs
}

// Kernel is what is known about a family now.
func (h *History) Kernel(f proxy.Family) Kernel {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.kernel[f]
	if k.Last != nil {
		last := *k.Last
		k.Last = &last
	}
	return k
}

// Audited says that the kernel was compared with what was applied.
func (h *History) Audited(f proxy.Family, differences int, err error) {
	a := &Audit{At: h.now(), Differences: differences}
	if err != nil {
		a.Error = shorten(err.Error())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kernel[f].Audit = a // a new one, which those who have the last one do not see change
}

// Conflicts lists the frontends that several ServicePorts claim now.
func (h *History) Conflicts(f proxy.Family) []desired.Conflict {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.conflicts[f])
}

// Queued implements loop.Observer.
func (h *History) Queued(f proxy.Family) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k := &h.kernel[f]; k.Waiting.IsZero() {
		k.Waiting = h.now()
	}
}

// Contested implements loop.Observer.
func (h *History) Contested(_ context.Context, f proxy.Family, conflicts []desired.Conflict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conflicts[f] = conflicts
}

// Doubted implements loop.Observer.
func (h *History) Doubted(f proxy.Family, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := &h.kernel[f]
	k.Doubts++
	k.Last = &Doubt{At: h.now(), Reason: shorten(reason)}
}

// Applied implements loop.Observer.
func (h *History) Applied(_ context.Context, a loop.Applied) {
	s := h.sync(a.Family, a.Report, a.Took)
	s.ServicePorts = a.New.Len()
	if len(a.Triggers) > 0 {
		s.Delay = s.Ended.Sub(slices.MinFunc(a.Triggers, time.Time.Compare))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(s)
	k := &h.kernel[a.Family]
	k.Applied, k.Waiting, k.Failing, k.Error = s.Ended, time.Time{}, time.Time{}, ""
	if s.Full {
		k.Compared = s.Ended
	}
	// The worker that was told of the doubt made this attempt after it.
	if k.Last != nil && k.Last.Repaired.IsZero() {
		k.Last.Repaired = s.Ended
	}
}

// Failed implements loop.Observer.
func (h *History) Failed(_ context.Context, f loop.Failed) {
	s := h.sync(f.Family, f.Report, f.Took)
	s.Error = shorten(f.Err.Error())
	h.mu.Lock()
	defer h.mu.Unlock()
	h.add(s)
	k := &h.kernel[f.Family]
	if k.Failing.IsZero() {
		k.Failing = s.Ended
	}
	k.Error = s.Error
}

func (h *History) sync(f proxy.Family, r proxy.Report, took time.Duration) Sync {
	s := Sync{
		Family: f.String(), Ended: h.now(), Took: took, Full: r.Full,
		Bytes: r.Bytes, Transactions: r.Transactions, SetAside: len(r.SetAside),
	}
	for _, t := range r.Tables {
		s.Objects += t.Objects
		s.Writes += t.Writes
	}
	return s
}

// add forgets the oldest if there is no room. It wants the lock.
func (h *History) add(s Sync) {
	h.last++
	s.Number = h.last
	if len(h.ring) < kept {
		h.ring = append(h.ring, s)
		return
	}
	h.ring[(s.Number-1)%kept] = s
}

// shorten cuts a text that is too long to be remembered.
func shorten(text string) string {
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest], "") + " …"
}
