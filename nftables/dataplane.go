package nftables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// maxElements is how many elements a transaction changes at most, if it can be divided. The kernel holds up everybody
// else's changes of rules while it takes one.
const maxElements = 2000

// dataplane writes one family's table. It implements proxy.Dataplane, proxy.Watcher, proxy.Inspector, proxy.Shower and proxy.Rememberer.
type dataplane struct {
	cfg    Config
	family proxy.Family
	table  nft.Interface
	forms  *nft.Forms // of its rules, nil: nobody remembers them
	batch  int        // elements of a transaction
	watch  func(ctx context.Context, doubt func(reason string)) error

	remembered clients

	held    *held // nil: nothing is known
	fresh   bool  // since Apply began, held was read from the kernel
	anew    int   // how often it may be read again because somebody interferes
	beyond  error // why the table that was found cannot be mended
	doubted bool  // since the table was last read, somebody else may have changed it
	shelf   shelf.Shelf
	now     func() time.Time

	report struct {
		full                                  bool
		writes, bytes, refusals, transactions int
	}
}

// held is what the kernel holds, as far as it is ours to know.
type held struct {
	writer   writer // of the rules
	refusing bool   // the rules that refuse are there

	ports   map[proxy.ServicePortName]*port
	applied *proxy.Snapshot // has exactly these ports, if it is not nil
	owners  owners
	numbers numbers
	objects int // elements

	chains map[spec]int         // that are there, and how many elements lead to each
	idle   map[string]time.Time // those to which nothing leads, and since when
}

func newDataplane(cfg Config, f proxy.Family, table nft.Interface) *dataplane {
	return &dataplane{
		cfg: cfg, family: f, table: table, batch: maxElements,
		remembered: clients{count: table.Count, now: time.Now}, shelf: shelf.Shelf{}, now: time.Now,
	}
}

// Apply implements proxy.Dataplane. It runs nothing if want asks for what is there.
func (d *dataplane) Apply(ctx context.Context, want *proxy.Snapshot) (proxy.Report, error) {
	now := d.now()
	d.fresh, d.anew, d.beyond = false, maxAnew, nil
	d.report.full, d.report.writes, d.report.bytes, d.report.refusals, d.report.transactions = false, 0, 0, 0, 0
	d.shelf.Review(want)
	err := d.settle(ctx, want)
	// Only now: those that were refused before must not hold up the others.
	for n := 1; err == nil && d.shelf.Retry(now, n); n *= 2 {
		err = d.settle(ctx, want)
	}
	if err == nil {
		err = d.sweep(ctx)
	}
	return d.reported(), err
}

// Resync implements proxy.Dataplane: the next Apply reads what is there.
func (d *dataplane) Resync(string) { d.held, d.doubted = nil, true }

// Watch implements proxy.Watcher.
func (d *dataplane) Watch(ctx context.Context, doubt func(reason string)) error {
	return d.watch(ctx, doubt)
}

// Clients implements proxy.Rememberer.
func (d *dataplane) Clients() (n, limit int, err error) { return d.remembered.get() }

func (d *dataplane) reported() proxy.Report {
	now := d.now()
	aside, again := d.shelf.Report(now)
	r := proxy.Report{
		Again:    again,
		SetAside: aside,
		Full:     d.report.full,
		Bytes:    d.report.bytes,
		Refusals: d.report.refusals,

		Transactions: d.report.transactions,
	}
	count := proxy.TableCount{Table: Table, Writes: d.report.writes}
	if d.held != nil {
		count.Objects = d.held.objects
		for _, since := range d.held.idle {
			if in := max(since.Add(idleTime).Sub(now), time.Millisecond); r.Again == 0 || in < r.Again {
				r.Again = in
			}
		}
	}
	r.Tables = []proxy.TableCount{count}
	return r
}

// maxAnew is how often a table is read again in one Apply because somebody interferes.
const maxAnew = 3

// settle applies want without the ServicePorts that are set aside, and sets aside those that the kernel refuses.
func (d *dataplane) settle(ctx context.Context, want *proxy.Snapshot) error {
	for {
		refused, err := d.attempt(ctx, d.shelf.Without(want))
		refusal, ok := errors.AsType[*nft.RefusedError](err)
		switch {
		case err == nil && len(refused) == 0:
			return nil
		case d.interferes(err):
			d.anew--
			d.held = nil
		case err != nil && !ok, ok && refusal.Resource:
			if !ok {
				d.held = nil // what became of the last transaction is not known
			}
			return err
		case !d.fresh:
			// Somebody may have changed what is there, which is nobody's fault here.
			d.held = nil
		case len(refused) > 0:
			d.shelf.Add(refused, d.now())
		case d.beyond == nil:
			d.beyond = err
			d.held = nil
		default:
			d.held = nil
			return err
		}
	}
}

// interferes tells whether a refusal may be about things that were there when the table was read and are gone, or the other
// way round. A program that replaces all rules when the node starts does that to us.
func (d *dataplane) interferes(err error) bool {
	refusal, ok := errors.AsType[*nft.RefusedError](err)
	half, _ := errors.AsType[partial](err)
	return (half.refused || ok && d.fresh && (refusal.Missing || refusal.Exists)) && d.anew > 0
}

// attempt makes the kernel hold target, but for what it gives back as refused. An error that is a *nft.RefusedError
// concerns no ServicePort alone.
func (d *dataplane) attempt(ctx context.Context, target *proxy.Snapshot) ([]shelf.Offence, error) {
	if d.held == nil {
		return d.load(ctx, target)
	}
	if err := d.turn(ctx, target.Node()); err != nil {
		return nil, err
	}
	changes, refused := d.changes(target)
	more, err := d.execute(ctx, changes)
	refused = append(refused, more...)
	if err != nil || len(refused) > 0 {
		d.held.applied = nil
		return refused, err
	}
	d.held.applied = target
	return nil, d.refuse(ctx)
}

// turn rewrites the rules for a node whose facts have changed. Chains keep their names, so elements need not change with
// them.
func (d *dataplane) turn(ctx context.Context, n *proxy.Node) error {
	h := d.held
	if h.writer.node == n {
		return nil
	}
	next := newWriter(d.cfg, n)
	specs := slices.Collect(maps.Keys(h.chains))
	if err := d.rewrite(ctx, h.writer.all(h.refusing, specs), next.all(h.refusing, specs)); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	if h.writer.tellsPods() != next.tellsPods() {
		h.applied = nil // ServicePorts are rendered in another way
	}
	h.writer = next
	return nil
}

// rewrite brings the chains that differ to the kernel.
func (d *dataplane) rewrite(ctx context.Context, was, now []nft.Chain) error {
	tx := d.table.NewTransaction()
	rules := nft.Rewrite(tx, was, now)
	err := d.run(ctx, tx)
	if err == nil {
		d.report.writes += rules
	}
	return err
}

// refuse adds the rules that refuse, after everything that is served is.
func (d *dataplane) refuse(ctx context.Context) error {
	h := d.held
	if h.refusing {
		return nil
	}
	if err := d.rewrite(ctx, h.writer.fixed(false), h.writer.fixed(true)); err != nil {
		return fmt.Errorf("write rules that refuse: %w", err)
	}
	h.refusing = true
	return nil
}

// run runs a transaction, if it does anything.
func (d *dataplane) run(ctx context.Context, tx *knftables.Transaction) error {
	if tx.NumOperations() == 0 {
		return nil
	}
	d.report.bytes += len(tx.String())
	d.report.transactions++
	err := d.table.Run(ctx, tx)
	if err != nil {
		d.report.refusals++
	}
	return err
}
