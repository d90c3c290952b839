package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	// maxListings bounds how often an interrupted listing is repeated.
	maxListings = 5

	// passTimeout ends a pass that the kernel does not answer.
	passTimeout = 30 * time.Second
)

// Cleaner deletes the UDP flows that a snapshot no longer allows. Calls for different families may
// be concurrent, calls for one family may not.
type Cleaner struct {
	table   Table
	owed    [len(proxy.Families)]debt
	answers [len(proxy.Families)]answers
}

// debt is what passes that failed have left to do in a family.
type debt struct {
	pass     bool
	ranged   bool // unassigned addresses have been looked at; the Service ranges may come late
	released map[netip.AddrPort]struct{}
	left     places
}

// Result is what a call did.
type Result struct {
	// Pass says that the table was listed; without a pass the rest is zero.
	Pass bool

	// Interrupted says that the listing may have missed flows each time. The next call makes a
	// pass again.
	Interrupted bool

	// Again, when not 0, asks for a call of Again after that time.
	Again time.Duration

	// Deleted counts the flows that were removed, by Reason.
	Deleted [NumReasons]int
}

// Total is the number of flows that were removed.
func (r Result) Total() int {
	total := 0
	for _, n := range r.Deleted {
		total += n
	}
	return total
}

// NewCleaner makes a cleaner of a table.
func NewCleaner(table Table) *Cleaner { return &Cleaner{table: table} }

// Applied ends the flows that are stale now that the kernel serves cur, which replaces old. It must
// be called after every successful Apply: before it, the next packet would bring the flow back
// under the old rules. It lists the table once, and only if a UDP ServicePort changed its frontends
// or serving endpoints, if an earlier call failed, or after Distrust.
//
// The first call of a family, for which old is nil, always lists, and looks further: it also ends
// flows to addresses of the Service ranges that nobody has, for nobody knows what was served
// before.
//
// After an error the next call repeats the pass, whatever has changed.
func (c *Cleaner) Applied(ctx context.Context, old, cur *proxy.Snapshot) (Result, error) {
	owed := &c.owed[cur.Family()]
	owed.add(old, cur)
	if !owed.pass {
		return Result{}, nil
	}
	j := owed.judge(cur)
	if j.idle() {
		owed.settle(cur)
		return Result{}, nil
	}
	j.answers = c.answers[cur.Family()]
	j.answers.forget(time.Now())
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	result, err := c.pass(ctx, cur.Family(), j)
	if result.Deleted[Untranslated] > 0 {
		result.Again = answerTime
	}
	if err == nil && !result.Interrupted {
		owed.settle(cur)
	}
	return result, err
}

// Distrust makes the next call of Applied for a family make a pass, whatever has changed: rules were missing
// for a while, and flows that began meanwhile are not translated.
func (c *Cleaner) Distrust(family proxy.Family) { c.owed[family].pass = true }

// Again ends what was brought back by answers that were on their way during an earlier call, now
// that the kernel serves cur. It is called no more than once for each call that asks for it.
func (c *Cleaner) Again(ctx context.Context, cur *proxy.Snapshot) (Result, error) {
	c.Distrust(cur.Family())
	result, err := c.Applied(ctx, cur, cur)
	result.Again = 0
	return result, err
}

// pass deletes what j finds stale.
func (c *Cleaner) pass(ctx context.Context, family proxy.Family, j *judge) (Result, error) {
	result := Result{Pass: true}
	stale, err := c.list(ctx, family, j)
	if errors.Is(err, ErrInterrupted) {
		result.Interrupted, err = true, nil
	}
	if err != nil {
		return result, fmt.Errorf("list %v UDP flows: %w", family, err)
	}
	// Before they are deleted, for a deletion that fails may have done its work.
	c.answers[family].expect(stale[Untranslated], time.Now())
	var errs []error
	for reason, flows := range stale {
		if len(flows) == 0 {
			continue
		}
		n, err := c.table.Delete(ctx, family, flows)
		result.Deleted[reason] += n
		if err != nil {
			errs = append(errs, fmt.Errorf("delete %d %v UDP flows: %w", len(flows), family, err))
		}
	}
	return result, errors.Join(errs...)
}

// list collects the stale flows. When every attempt was interrupted, it returns what the last one
// has found together with ErrInterrupted.
func (c *Cleaner) list(ctx context.Context, family proxy.Family, j *judge) ([NumReasons][]Flow, error) {
	for attempt := 1; ; attempt++ {
		stale, err := c.listOnce(ctx, family, j)
		if !errors.Is(err, ErrInterrupted) || attempt == maxListings {
			return stale, err
		}
	}
}

func (c *Cleaner) listOnce(ctx context.Context, family proxy.Family, j *judge) ([NumReasons][]Flow, error) {
	var stale [NumReasons][]Flow
	for flow, err := range c.table.Flows(ctx, family) {
		if err != nil {
			return stale, err
		}
		if reason, is := j.stale(flow); is {
			stale[reason] = append(stale[reason], flow)
		}
	}
	return stale, nil
}

// add notes what the change from old to cur leaves to be done.
func (d *debt) add(old, cur *proxy.Snapshot) {
	if old == nil || !d.ranged && len(cur.Node().ServiceCIDRs) > 0 {
		d.pass = true
	}
	for name, change := range cur.Changes(old) {
		if name.Protocol != proxy.UDP || sameFlows(change.Old, change.New) {
			continue
		}
		d.pass = true
		if change.Old == nil {
			continue
		}
		if d.released == nil {
			d.released = map[netip.AddrPort]struct{}{}
		}
		for _, f := range change.Old.Frontends {
			d.released[f.Addr] = struct{}{}
		}
	}
	if old == nil {
		return
	}
	if !samePlaces(old.Node(), cur.Node()) {
		d.pass = true
	}
	if d.pass {
		d.left.add(old.Node())
	}
}

// settle notes that a pass for cur has done everything.
func (d *debt) settle(cur *proxy.Snapshot) {
	*d = debt{ranged: d.ranged || len(cur.Node().ServiceCIDRs) > 0}
}

// judge is what decides about flows now that the kernel serves cur.
func (d *debt) judge(cur *proxy.Snapshot) *judge {
	j := &judge{owners: map[netip.AddrPort]*proxy.ServicePort{}, released: d.released, left: d.left}
	j.nodePorts.add(cur.Node())
	for name, port := range cur.All() {
		if name.Protocol != proxy.UDP {
			continue
		}
		for _, f := range port.Frontends {
			j.owners[f.Addr] = port
		}
	}
	if !d.ranged {
		j.unassigned = cur.Node().ServiceCIDRs
	}
	return j
}

// sameFlows tells whether two ServicePorts allow the same flows.
func sameFlows(a, b *proxy.ServicePort) bool {
	return a != nil && b != nil &&
		slices.Equal(a.Keep, b.Keep) &&
		slices.EqualFunc(a.Frontends, b.Frontends, proxy.Frontend.Equal)
}
