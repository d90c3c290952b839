package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/klog/v2"
	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// load takes over whatever the kernel holds, which it reads, and applies target.
func (d *dataplane) load(ctx context.Context, target *proxy.Snapshot) ([]shelf.Offence, error) {
	d.report.full, d.fresh = true, true
	all, err := d.servers.List(ctx) // before anything of IPVS can be set, its module must be loaded
	if err != nil {
		return nil, err
	}
	if err := d.settings(ctx); err != nil {
		return nil, err
	}
	state, err := d.table.Read(ctx)
	if err != nil {
		return nil, err
	}
	ours, err := ledgerOf(state).ours(ctx, d.servers, all)
	if err != nil {
		return nil, err
	}
	d.held = d.holdNothing(target.Node())
	for _, s := range all {
		d.held.marks.used[s.ID.Mark] = true
	}
	if err := d.adoptTable(ctx, state); err != nil {
		return nil, err
	}
	changes := d.changes(target)
	d.held.take(changes)
	if err := d.route(target.Node()); err != nil {
		return nil, err
	}
	if err := d.adoptServers(ctx, all, ours, changes); err != nil {
		return nil, err
	}
	refused, err := d.execute(ctx, changes)
	if err != nil || len(refused) > 0 {
		return refused, err
	}
	if err := d.discard(ctx); err != nil {
		return nil, err
	}
	d.held.found = nil
	d.held.applied = target
	return nil, d.refuse(ctx)
}

func (d *dataplane) holdNothing(n *proxy.Node) *held {
	return &held{
		writer:   newWriter(d.cfg, n),
		ports:    map[proxy.ServicePortName]*port{},
		claims:   map[kernel.ID][]*front{},
		fronts:   map[kernel.ID]*front{},
		shared:   map[nft.Place]int{},
		servers:  map[kernel.ID]*server{},
		foreign:  map[kernel.ID]bool{},
		marks:    marks{used: map[uint32]bool{}, route: d.cfg.RouteMark},
		found:    map[nft.Place]*nft.Content{},
		draining: map[kernel.ID]bool{},
		outer:    map[netip.Addr]int{},
	}
}

// adoptTable makes the table have the chains that it should have, and takes note of its elements. If there is none, what
// refuses comes last: another proxy may still be serving.
func (d *dataplane) adoptTable(ctx context.Context, state *nft.State) error {
	h := d.held
	if state == nil {
		return d.makeTable(ctx, d.table.NewTransaction(), ledger{}, false)
	}
	if !state.Fits {
		return d.replaceTable(ctx, state)
	}
	if state.Asleep {
		if err := d.wake(ctx); err != nil {
			return err
		}
	}
	h.found = ledgerOf(state).places
	h.elements = len(h.found)
	h.refusing = h.writer.refuses(state)
	want := h.writer.fixed(h.refusing)
	was := slices.DeleteFunc(slices.Clone(want), func(c nft.Chain) bool { return !c.Is(state) })
	if err := d.rewrite(ctx, was, want); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	return nil
}

// wake lets packets into the table again that somebody made dormant.
func (d *dataplane) wake(ctx context.Context) error {
	klog.FromContext(ctx).Info("Waking a table that somebody had made dormant", "table", Table)
	tx := d.table.NewTransaction()
	tx.Add(&knftables.Table{})
	if err := d.table.Run(ctx, tx); err != nil {
		return fmt.Errorf("wake table %s: %w", Table, err)
	}
	d.report.elements++
	return nil
}

// replaceTable puts a table of this layout in the place of another one, in one transaction. What it says goes on to hold, as far as
// that is understood: packets are led as before, and virtual servers are known to be ours.
func (d *dataplane) replaceTable(ctx context.Context, state *nft.State) error {
	klog.FromContext(ctx).Info("Replacing a table of another layout", "table", Table, "unlike", state.Why())
	replacing := func() *knftables.Transaction {
		tx := d.table.NewTransaction()
		nft.Vanish(tx)
		return tx
	}
	found := ledgerOf(state)
	err := d.makeTable(ctx, replacing(), found, d.held.writer.refuses(state))
	if _, refused := errors.AsType[*nft.RefusedError](err); !refused {
		return err
	}
	// There may be an element that leads to a chain of the other layout.
	return d.makeTable(ctx, replacing(), found.owners(), false)
}

// makeTable makes the table with what a ledger says.
func (d *dataplane) makeTable(ctx context.Context, tx *knftables.Transaction, from ledger, refusing bool) error {
	h := d.held
	schema.Declare(tx, d.family)
	rules := nft.Rewrite(tx, nil, h.writer.fixed(refusing))
	nft.Write(tx, from.copied())
	d.report.bytes += len(tx.String())
	if err := d.table.Run(ctx, tx); err != nil {
		return fmt.Errorf("make table %s: %w", Table, err)
	}
	d.report.elements += rules + len(from.places)
	h.refusing = refusing
	if len(from.places) > 0 {
		h.found = from.places
	}
	h.elements = len(h.found)
	return nil
}

// adoptServers takes note of the virtual servers that are ours: those that are known to be, by the table or by us, and
// those that a Service wants, unless they are to be left to others.
func (d *dataplane) adoptServers(ctx context.Context, all []kernel.Server, known func(kernel.ID) bool, changes []change) error {
	h := d.held
	wanted := map[kernel.ID]bool{}
	for _, c := range changes {
		for _, f := range c.new.fronts {
			wanted[f.id] = wanted[f.id] || f.serves != nil
		}
	}
	var ids []kernel.ID
	for _, s := range all {
		_, owned := h.found[ownPlace(s.ID)]
		ours := known(s.ID) || d.known[s.ID] || s.ID == sentinelID(d.cfg) || wanted[s.ID] && !d.excluded(s.ID)
		if !ours {
			h.foreign[s.ID] = true
			continue
		}
		ids = append(ids, s.ID)
		d.known[s.ID] = true
		x := &server{Server: s, owned: owned, dests: map[netip.AddrPort]dest{}, since: d.now()}
		if past := d.past[s.ID]; past != nil && !past.wanted {
			x.since = past.since
		}
		delete(h.found, ownPlace(s.ID))
		if s.ID.Mark == 0 {
			p := frontends.at(frontendKey(s.ID))
			_, x.listed = h.found[p]
			delete(h.found, p)
		}
		h.servers[s.ID] = x
		h.objects++
	}
	loads, err := d.servers.Dests(ctx, ids)
	if err != nil {
		return err
	}
	for id, list := range loads {
		s := h.servers[id]
		h.objects += len(list)
		for _, l := range list {
			s.dests[l.Addr] = d.found(id, l)
		}
	}
	return d.placeSentinel(ctx)
}

// found is a backend as it was read. One without weight has drained since it was seen to, or since now.
func (d *dataplane) found(id kernel.ID, l kernel.Load) dest {
	if l.Weight > 0 {
		return dest{weight: l.Weight, altered: l.Altered}
	}
	if past := d.past[id]; past != nil {
		if x, known := past.dests[l.Addr]; known && x.weight == 0 && !x.since.IsZero() {
			return x
		}
	}
	return dest{since: d.now()}
}

func (d *dataplane) excluded(id kernel.ID) bool {
	return slices.ContainsFunc(d.cfg.Exclude, func(p netip.Prefix) bool { return p.Contains(id.Addr.Addr()) })
}

// placeSentinel makes sure that a virtual server is there which serves nothing: when it is gone, so are all others.
func (d *dataplane) placeSentinel(ctx context.Context) error {
	id := sentinelID(d.cfg)
	want := &spec{scheduler: DefaultScheduler}
	w := &work{}
	d.reconcile(w, id, proxy.ServicePortName{}, want)
	refused, err := d.do(ctx, w)
	if err == nil && len(refused) > 0 {
		err = refused[0].Err
	}
	return err
}

// discard removes what was found and nobody wants.
func (d *dataplane) discard(ctx context.Context) error {
	h := d.held
	w := &work{}
	for p, c := range h.found {
		to := &w.policy
		if p.Set == sets[ownServers] || p.Set == sets[ownMarks] {
			to = &w.disown // its virtual server is gone
		}
		to.Add(nft.Edit{Place: p, Old: c})
	}
	for _, s := range h.servers {
		if !s.wanted && h.fronts[s.ID] == nil { // otherwise it was seen to
			d.dismiss(w, s, nil)
		}
	}
	_, err := d.do(ctx, w)
	return err
}

// parseMark reads a mark in the words of nft.
func parseMark(text string) (uint32, bool) {
	hex, ok := strings.CutPrefix(text, "0x")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	return uint32(n), err == nil
}
