package nftables

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"k8s.io/klog/v2"
	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// load takes over whatever the kernel holds, which it reads, and applies target.
func (d *dataplane) load(ctx context.Context, target *proxy.Snapshot) ([]shelf.Offence, error) {
	d.report.full, d.fresh = true, true
	found, err := d.table.Read(ctx)
	if err != nil {
		return nil, err
	}
	d.held = d.holdNothing(target.Node())
	switch {
	case found == nil:
		var all damage
		all.missing.add("all of it")
		d.tell(ctx, &all)
		return d.begin(ctx, d.table.NewTransaction(), target)
	case !found.Fits:
		klog.FromContext(ctx).Info("Replacing a table of another layout", "table", Table, "unlike", strings.Join(found.Unlike, ", "))
		d.doubted = false
		return d.replace(ctx, target)
	}
	refused, err := d.adopt(ctx, target, found)
	if err != nil || len(refused) > 0 {
		d.held = nil
		return refused, err
	}
	d.held.applied = target
	return nil, d.refuse(ctx)
}

func (d *dataplane) holdNothing(n *proxy.Node) *held {
	return &held{
		writer:  newWriter(d.cfg, n),
		ports:   map[proxy.ServicePortName]*port{},
		owners:  owners{},
		numbers: numbers{used: map[uint16]bool{}, next: 1},
		chains:  map[spec]int{},
		idle:    map[string]time.Time{},
	}
}

// begin makes the table and fills it: what refuses comes last, for another proxy may still be serving.
func (d *dataplane) begin(ctx context.Context, tx *knftables.Transaction, target *proxy.Snapshot) ([]shelf.Offence, error) {
	declare(tx, d.family)
	rules := rewrite(tx, nil, d.held.writer.fixed(false))
	if err := d.run(ctx, tx); err != nil {
		return nil, fmt.Errorf("make table %s: %w", Table, err)
	}
	d.report.writes += rules
	return d.attempt(ctx, target)
}

// vanish lets a transaction begin with a table that is not there.
func vanish(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
}

// replace puts a table of this layout in the place of another one, in one transaction if the kernel takes that.
func (d *dataplane) replace(ctx context.Context, target *proxy.Snapshot) ([]shelf.Offence, error) {
	h := d.held
	all, refused := d.changes(target)
	if len(refused) > 0 {
		return refused, nil
	}
	tx := d.table.NewTransaction()
	vanish(tx)
	declare(tx, d.family)
	rules := rewrite(tx, nil, h.writer.fixed(true))
	err := d.commit(ctx, tx, all, math.MaxInt)
	if _, ok := errors.AsType[*nft.RefusedError](err); ok {
		tx := d.table.NewTransaction()
		vanish(tx)
		d.held = d.holdNothing(target.Node())
		return d.begin(ctx, tx, target)
	}
	if err != nil {
		return nil, err
	}
	d.report.writes += rules
	h.applied, h.refusing = target, true
	return nil, nil
}

// adopt compares what the kernel holds with target, and writes what differs. After anything but success, held is
// not to be relied upon.
func (d *dataplane) adopt(ctx context.Context, target *proxy.Snapshot, found *nft.State) ([]shelf.Offence, error) {
	h, l := d.held, newLedger(found)
	h.objects = len(l.elements)
	all, refused := l.changes(h, target)
	if len(refused) > 0 {
		return refused, nil
	}
	var differs damage
	if err := d.adoptChains(ctx, all, found.Chains, &differs); err != nil {
		return nil, err
	}
	common, obsolete := l.rest(h.owners)
	for _, c := range all {
		differs.edits(c.edits.list)
	}
	differs.edits(common.list)
	differs.edits(obsolete)
	d.tell(ctx, &differs)
	if err := d.commit(ctx, d.table.NewTransaction(), []*change{{edits: common}}, d.batch); err != nil {
		return nil, err
	}
	refused, err := d.execute(ctx, inOrder(all))
	if err != nil || len(refused) > 0 {
		return refused, err
	}
	for _, part := range parts(obsolete, d.batch) {
		if err := d.send(ctx, d.table.NewTransaction(), part); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// adoptChains makes the chains that are there what they should be. Those that are wanted and not there come with what
// leads to them; those that are not wanted go later.
func (d *dataplane) adoptChains(ctx context.Context, all []*change, there map[string][]string, differs *damage) error {
	h := d.held
	is := func(c chain) bool {
		digests, ok := there[c.name]
		return ok && slices.Equal(digests, c.digests())
	}
	// One chain that refuses is proof enough: what is amiss with the others is mended.
	patient := h.writer.filter(false)
	for i, c := range h.writer.filter(true) {
		h.refusing = h.refusing || is(c) && !slices.Equal(c.rules, patient[i].rules)
	}
	want := h.writer.fixed(h.refusing)
	known := map[string]bool{}
	for _, c := range want {
		known[c.name] = true
	}
	for _, c := range all {
		for _, p := range c.ports {
			for _, s := range p.lead {
				if _, ok := there[s.name()]; ok && !known[s.name()] {
					known[s.name()] = true
					h.chains[s] = 0
					want = append(want, h.writer.chain(s))
				}
			}
		}
	}
	for name := range there {
		if !known[name] {
			h.idle[name] = d.now()
		}
	}
	var was []chain
	for _, c := range want {
		if is(c) {
			was = append(was, c)
			continue
		}
		_, here := there[c.name]
		differs.chain(c.name, here)
	}
	if err := d.rewrite(ctx, was, want); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	return nil
}
