package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// dataplane writes one family's rules. It implements proxy.Dataplane, proxy.Watcher, proxy.Inspector and proxy.Shower.
type dataplane struct {
	cfg   Config
	ipt   *tally
	batch int // see how
	none  *tables
	watch func(ctx context.Context, doubt func(reason string)) error

	inspector inspector
	current   atomic.Pointer[tables] // those that were written last, for Show

	// maybe says what the kernel holds: each of our chains is as one of these states has it. There is one
	// state after a success; it is the first of several after failures. Nil: nothing is known.
	maybe []*tables

	jumps  []xtables.Jump // those in place; nil: not known
	served bool           // a whole snapshot has been applied once

	// leave removes what an earlier start left in the other backend; nil once that is done.
	leave func(ctx context.Context) error

	now    func() time.Time
	shelf  shelf.Shelf
	linger lingering

	full   bool // since Apply began, everything was written
	counts map[string]*proxy.TableCount
}

// maxStates is how many possible states are remembered before everything is written anew.
const maxStates = 16

func newDataplane(cfg Config, ipt xtables.Interface) *dataplane {
	return &dataplane{
		cfg:    cfg,
		ipt:    &tally{Interface: ipt},
		none:   nothing,
		now:    time.Now,
		shelf:  shelf.Shelf{},
		linger: lingering{},
		counts: map[string]*proxy.TableCount{nat: {Table: nat}, filter: {Table: filter}},
	}
}

// Apply implements proxy.Dataplane. It runs nothing if want asks for what is there.
func (d *dataplane) Apply(ctx context.Context, want *proxy.Snapshot) (proxy.Report, error) {
	now := d.now()
	d.full = false
	d.ipt.reset()
	for _, c := range d.counts {
		c.Writes = 0
	}
	d.shelf.Review(want)
	err := d.settle(ctx, want)
	// Only now: those that were refused before must not hold up the others.
	for n := 1; err == nil && d.shelf.Retry(now, n); n *= 2 {
		err = d.settle(ctx, want)
	}
	if err == nil {
		d.served = true
		d.leaveOther(ctx)
	}
	return d.report(), err
}

// leaveOther ends the work of the other backend, which would go on sending packets to the endpoints of its time. It
// comes after ours is complete, so that no packet finds neither, and what hinders it does not hinder ours.
func (d *dataplane) leaveOther(ctx context.Context) {
	if d.leave == nil {
		return
	}
	if err := d.leave(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Rules of an earlier start not removed from the other backend")
		return
	}
	d.leave = nil
}

// Resync implements proxy.Dataplane: the next Apply writes everything.
func (d *dataplane) Resync(string) { d.maybe, d.jumps = nil, nil }

// Watch implements proxy.Watcher.
func (d *dataplane) Watch(ctx context.Context, doubt func(reason string)) error {
	return d.watch(ctx, doubt)
}

func (d *dataplane) report() proxy.Report {
	aside, again := d.shelf.Report(d.now())
	return proxy.Report{
		Again:    again,
		SetAside: aside,
		Full:     d.full,
		Tables:   []proxy.TableCount{*d.counts[nat], *d.counts[filter]},
		Bytes:    d.ipt.bytes,
		Refusals: d.ipt.refusals,

		Transactions: d.ipt.transactions,
	}
}

// settle applies want without the ServicePorts that are set aside, and sets aside those that iptables
// refuses.
func (d *dataplane) settle(ctx context.Context, want *proxy.Snapshot) error {
	var keep bool
	told := map[string]bool{}
	for {
		err := d.attempt(ctx, d.shelf.Without(want), keep)
		refused, ok := errors.AsType[*refusal](err)
		if !ok {
			return err
		}
		if !keep && refused.mayBeDeletion() {
			// Rules of others may lead to a chain of ours that is no longer wanted.
			keep = true
			continue
		}
		if refused.lost && !d.full {
			// Somebody has deleted chains of ours, which is nobody's fault here.
			d.Resync(refused.Error())
			continue
		}
		found, err := d.offenders(ctx, refused, d.shelf.Without(want), told)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return refused
		}
		d.shelf.Add(found, d.now())
	}
}

// attempt makes the kernel hold target, or gives a *refusal.
func (d *dataplane) attempt(ctx context.Context, target *proxy.Snapshot, keep bool) error {
	if d.maybe == nil {
		if done, err := d.load(ctx, target, keep); done || err != nil {
			return err
		}
	}
	return d.move(ctx, target, keep)
}

// move takes the kernel from what it may hold to target, in one restore.
func (d *dataplane) move(ctx context.Context, target *proxy.Snapshot, keep bool) error {
	d.full = d.full || d.maybe[0].partial
	next, between := d.maybe[0].next(target)
	if !d.served {
		between = nil // a cold start refuses last
	}
	p := d.cfg.plan(d.maybe, between, next)
	left, err := d.leaveJumps(ctx, target.Node())
	if err != nil {
		d.jumps = nil
		return err
	}
	if err := d.restore(ctx, p, keep); err != nil {
		if left {
			d.jumps = nil // some are gone, and may be wanted again by the next attempt
		}
		if d.maybe = append(d.maybe, next); between != nil {
			d.maybe = append(d.maybe, between)
		}
		if len(d.maybe) > maxStates {
			d.maybe = nil
		}
		return err
	}
	d.maybe = []*tables{next}
	d.current.Store(next)
	if err := d.sweep(ctx); err != nil {
		return err
	}
	return d.ensureJumps(ctx, target.Node())
}

// load writes to a kernel of which nothing is known. It is done unless nothing of ours was there at a
// cold start: then it wrote what must come first, and move does the rest.
func (d *dataplane) load(ctx context.Context, target *proxy.Snapshot, keep bool) (done bool, err error) {
	present := map[string]map[string]int{}
	for _, table := range []string{nat, filter} {
		if present[table], err = d.ipt.Chains(ctx, table, xtables.DefaultPrefix); err != nil {
			return false, fmt.Errorf("list chains of table %s: %w", table, err)
		}
	}
	marks, err := d.ipt.Chains(ctx, nat, markChain)
	if err != nil {
		return false, fmt.Errorf("list chains of table %s: %w", nat, err)
	}
	d.full, d.linger = true, lingering{}
	cold := !d.served && len(present[nat])+len(present[filter]) == 0
	next, between := d.none.first(target), (*tables)(nil)
	if !cold {
		next, _ = d.none.next(target)
		between = next.wary()
	}
	p := d.cfg.plan([]*tables{d.none}, between, next)
	for table := range present {
		first := p.first(table)
		d.counts[table].Objects = 0
		for _, name := range slices.Sorted(maps.Keys(present[table])) {
			first.remove(name)
		}
		if table == nat && marks[markChain] == 0 {
			first.markBase(next.node())
		}
	}
	if err := d.restore(ctx, p, keep); err != nil {
		return false, err
	}
	d.maybe = []*tables{next}
	d.current.Store(next) // if something is left out it is another snapshot's
	if err := d.sweep(ctx); err != nil {
		return false, err
	}
	return !cold, d.ensureJumps(ctx, target.Node())
}

// form cuts commits only if it is known which chains are there: the order in which they are written then
// lets every jump find its target.
func (d *dataplane) form(keep bool) how {
	if len(d.maybe) > 1 {
		return how{keep: keep}
	}
	return how{keep: keep, batch: d.batch}
}

// restore runs a plan, if it does anything.
func (d *dataplane) restore(ctx context.Context, p plan, keep bool) error {
	input := p.input(d.form(keep))
	if len(input) == 0 {
		return nil
	}
	if err := d.ipt.Restore(ctx, input); err != nil {
		return refusalOf(err, input)
	}
	for _, s := range p {
		d.counts[s.table].Objects += s.grown
		d.counts[s.table].Writes += s.writes
		d.linger.note(s, keep)
	}
	return nil
}

// ensureJumps leads packets to our chains, unless that is known to be so.
func (d *dataplane) ensureJumps(ctx context.Context, n *proxy.Node) error {
	wanted := jumps(n)
	if sameJumps(d.jumps, wanted) {
		return nil
	}
	d.jumps = nil
	if err := d.ipt.EnsureJumps(ctx, wanted); err != nil {
		return fmt.Errorf("lead packets to our chains: %w", err)
	}
	d.jumps = wanted
	return nil
}

// leaveJumps removes the jumps to chains that are about to be deleted, and tells whether there were any.
func (d *dataplane) leaveJumps(ctx context.Context, n *proxy.Node) (left bool, err error) {
	var wanted, had []string
	for _, j := range jumps(n) {
		wanted = append(wanted, j.Target)
	}
	for _, j := range d.jumps {
		had = append(had, j.Target)
	}
	slices.Sort(had)
	for _, target := range slices.Compact(had) {
		if slices.Contains(wanted, target) {
			continue
		}
		if err := d.ipt.RemoveJumps(ctx, target); err != nil {
			return left, fmt.Errorf("lead packets past %s: %w", target, err)
		}
		left = true
	}
	return left, nil
}

func sameJumps(a, b []xtables.Jump) bool {
	return slices.EqualFunc(a, b, func(a, b xtables.Jump) bool {
		return a.Table == b.Table && a.Chain == b.Chain && a.Target == b.Target && a.Comment == b.Comment &&
			slices.Equal(a.Match, b.Match)
	})
}
