package nftables

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
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
	if found == nil {
		d.tell(ctx, []proxy.Difference{{Kind: proxy.Missing, Object: "all of it"}})
		return d.begin(ctx, d.table.NewTransaction(), target)
	}
	if err := d.wake(ctx, found); err != nil {
		return nil, err
	}
	if d.beyond != nil {
		found.Fits = false
	}
	if !found.Fits {
		klog.FromContext(ctx).Info("Replacing a table of another layout", "table", Table, "unlike", d.unlike(found))
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

// wake lets packets into a table again that somebody made dormant.
func (d *dataplane) wake(ctx context.Context, found *nft.State) error {
	if !found.Asleep {
		return nil
	}
	tx := d.table.NewTransaction()
	tx.Add(&knftables.Table{})
	if err := d.run(ctx, tx); err != nil {
		return fmt.Errorf("wake table %s: %w", Table, err)
	}
	return nil
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
	schema.Declare(tx, d.family)
	rules := nft.Rewrite(tx, nil, d.held.writer.fixed(false))
	if err := d.run(ctx, tx); err != nil {
		return nil, fmt.Errorf("make table %s: %w", Table, err)
	}
	d.report.writes += rules
	return d.attempt(ctx, target)
}

// replace puts a table of this layout in the place of another one, in one transaction if the kernel takes that.
func (d *dataplane) replace(ctx context.Context, target *proxy.Snapshot) ([]shelf.Offence, error) {
	h := d.held
	all, refused := d.changes(target)
	if len(refused) > 0 {
		return refused, nil
	}
	tx := d.table.NewTransaction()
	nft.Vanish(tx)
	schema.Declare(tx, d.family)
	rules := nft.Rewrite(tx, nil, h.writer.fixed(true))
	err := d.commit(ctx, tx, all, math.MaxInt)
	if _, ok := errors.AsType[*nft.RefusedError](err); ok {
		tx := d.table.NewTransaction()
		nft.Vanish(tx)
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
	h.objects = len(l.places)
	all, refused := l.changes(h, target)
	if len(refused) > 0 {
		return refused, nil
	}
	h.refusing = h.writer.refuses(found)
	want := d.claimChains(all, found)
	common, obsolete := l.rest(h.owners)
	if d.doubted {
		d.tell(ctx, d.damage(found, want, all, common, obsolete))
	}
	was := slices.DeleteFunc(slices.Clone(want), func(c nft.Chain) bool { return !c.Is(found) })
	if err := d.rewrite(ctx, was, want); err != nil {
		return nil, fmt.Errorf("write rules: %w", err)
	}
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

// refuses tells whether the rules that refuse are there. One chain that refuses is proof enough: what is amiss with the others is
// mended.
func (w writer) refuses(found *nft.State) bool {
	patient := w.filter(false)
	for i, c := range w.filter(true) {
		if c.Is(found) && !slices.Equal(c.Rules, patient[i].Rules) {
			return true
		}
	}
	return false
}

// claimChains are the chains that are wanted and there, and those that are wanted whatever there is. Others that are wanted come
// with what leads to them; those that are not wanted go later.
func (d *dataplane) claimChains(all []*change, found *nft.State) (want []nft.Chain) {
	h, there := d.held, found.Chains
	want = h.writer.fixed(h.refusing)
	known := map[string]bool{}
	for _, c := range want {
		known[c.Name] = true
	}
	for _, s := range leads(all) {
		if _, ok := there[s.name()]; ok && !known[s.name()] {
			known[s.name()] = true
			h.chains[s] = 0
			want = append(want, h.writer.chain(s))
		}
	}
	for name := range there {
		if !known[name] {
			h.idle[name] = d.now()
		}
	}
	return want
}

// leads are the chains that elements lead to, each as often as they do.
func leads(all []*change) (list []spec) {
	for _, c := range all {
		for _, p := range c.ports {
			list = append(list, p.lead...)
		}
	}
	return list
}
