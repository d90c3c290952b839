package ipvs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// maxElements is how many elements a transaction changes at most, if it can be divided. The kernel holds up everybody
// else's changes of rules while it takes one.
const maxElements = 2000

// maxTries is how often it is tried to apply something while others change virtual servers.
const maxTries = 5

// router sets rules and routes.
type router interface {
	// Apply compares want with what is there.
	Apply(want kernel.Routes) (writes int, err error)

	// Change compares it with what was applied.
	Change(was, want kernel.Routes) (writes int, err error)

	// Compare lists how what is there differs from want, and writes nothing. It may run beside the other methods.
	Compare(want kernel.Routes) ([]proxy.Difference, error)
}

// dataplane writes one family's table and virtual servers. It implements proxy.Dataplane, proxy.Watcher, proxy.Inspector and proxy.Shower.
type dataplane struct {
	cfg      Config
	family   proxy.Family
	table    nft.Interface
	forms    *nft.Forms // of its rules, nil: nobody remembers them
	servers  kernel.Servers
	router   router
	settings func(ctx context.Context) error // sets what concerns more than this family
	batch    int                             // elements of a transaction
	watch    func(ctx context.Context, doubt func(reason string)) error
	unmet    func() []kernel.Change // settings that are not as they should be
	see      func(ctx context.Context) (l looker, done func(), err error)
	observe  func([]nft.Edit) // is told what is sent to the table; nil: nobody is

	busy   sync.Mutex            // held while something is changed: the audit does not look then
	held   *held                 // nil: nothing is known
	known  map[kernel.ID]bool    // virtual servers that are ours, also when the table that says so is lost
	past   map[kernel.ID]*server // what was held last, before the kernel was read anew
	fresh  bool                  // since Apply began, held was read from the kernel
	shelf  shelf.Shelf
	now    func() time.Time
	routes atomic.Pointer[kernel.Routes] // that were applied, for Watch

	report struct {
		full                      bool
		elements, objects, routes int // written
		bytes, refusals           int
	}
}

func newDataplane(cfg Config, f proxy.Family, table nft.Interface, servers kernel.Servers, r router) *dataplane {
	return &dataplane{
		cfg: cfg, family: f, table: table, servers: servers, router: r, batch: maxElements, shelf: shelf.Shelf{}, now: time.Now,
		known: map[kernel.ID]bool{}, unmet: func() []kernel.Change { return nil },
	}
}

// Apply implements proxy.Dataplane. It runs nothing if want asks for what is there.
func (d *dataplane) Apply(ctx context.Context, want *proxy.Snapshot) (proxy.Report, error) {
	d.busy.Lock()
	defer d.busy.Unlock()
	now := d.now()
	d.fresh = false
	d.report.full = false
	d.report.elements, d.report.objects, d.report.routes, d.report.bytes, d.report.refusals = 0, 0, 0, 0, 0
	d.shelf.Review(want)
	err := d.settle(ctx, want)
	// Only now: those that were refused before must not hold up the others.
	for n := 1; err == nil && d.shelf.Retry(now, n); n *= 2 {
		err = d.settle(ctx, want)
	}
	if err == nil {
		if err = d.drain(ctx); err != nil {
			d.forget()
		}
	}
	return d.reported(), err
}

// Resync implements proxy.Dataplane: the next Apply reads what is there.
func (d *dataplane) Resync(string) {
	d.busy.Lock()
	defer d.busy.Unlock()
	d.forget()
}

// forget has the kernel read anew. Since when something drains is not to be read there.
func (d *dataplane) forget() {
	if d.held != nil {
		d.past = d.held.servers
	}
	d.held = nil
}

// Watch implements proxy.Watcher.
func (d *dataplane) Watch(ctx context.Context, doubt func(reason string)) error {
	return d.watch(ctx, doubt)
}

func (d *dataplane) reported() proxy.Report {
	now := d.now()
	aside, again := d.shelf.Report(now)
	r := proxy.Report{Again: again, SetAside: aside, Full: d.report.full, Bytes: d.report.bytes, Refusals: d.report.refusals}
	table := proxy.TableCount{Table: Table, Writes: d.report.elements}
	servers := proxy.TableCount{Table: "ipvs", Writes: d.report.objects}
	routes := proxy.TableCount{Table: "routes", Writes: d.report.routes}
	if h := d.held; h != nil {
		table.Objects, servers.Objects = h.elements, h.objects
		if len(h.draining) > 0 {
			if in := max(h.look.Sub(now), time.Millisecond); r.Again == 0 || in < r.Again {
				r.Again = in
			}
		}
	}
	r.Tables = []proxy.TableCount{table, servers, routes}
	return r
}

// settle applies want without the ServicePorts that are set aside, and sets aside those that the kernel refuses.
func (d *dataplane) settle(ctx context.Context, want *proxy.Snapshot) error {
	for tries := 1; ; tries++ {
		refused, err := d.attempt(ctx, d.shelf.Without(want))
		if err == nil && len(refused) == 0 {
			return nil
		}
		d.forget() // what became of the last step is not known
		refusal, ok := errors.AsType[*nft.RefusedError](err)
		switch {
		case tries < maxTries && disturbed(refused, err):
		case err != nil && (!ok || refusal.Resource || d.fresh):
			return err
		case d.fresh:
			d.shelf.Add(refused, d.now())
		}
		// Otherwise somebody may have changed what is there, which is nobody's fault here.
	}
}

// disturbed tells whether somebody else may be to blame for a refusal of the kernel.
func disturbed(refused []shelf.Offence, err error) bool {
	is := func(err error) bool {
		e, ok := errors.AsType[*kernel.Error](err)
		return ok && e.Disturbed()
	}
	return is(err) || slices.ContainsFunc(refused, func(o shelf.Offence) bool { return is(o.Err) })
}

// attempt makes the kernel hold target, but for what it gives back as refused.
func (d *dataplane) attempt(ctx context.Context, target *proxy.Snapshot) ([]shelf.Offence, error) {
	if d.held == nil {
		return d.load(ctx, target)
	}
	if err := d.turn(ctx, target.Node()); err != nil {
		return nil, err
	}
	changes := d.changes(target)
	d.held.take(changes)
	refused, err := d.execute(ctx, changes)
	if err != nil || len(refused) > 0 {
		return refused, err
	}
	if err := d.route(target.Node()); err != nil {
		return nil, err
	}
	d.held.applied = target
	return nil, d.refuse(ctx)
}

// turn rewrites rules for a node whose facts have changed.
func (d *dataplane) turn(ctx context.Context, n *proxy.Node) error {
	h := d.held
	if h.writer.node == n {
		return nil
	}
	next := newWriter(d.cfg, n)
	if err := d.rewrite(ctx, h.writer.fixed(h.refusing), next.fixed(h.refusing)); err != nil {
		return fmt.Errorf("write rules: %w", err)
	}
	h.writer = next
	h.applied = nil // frontends of NodePorts follow the node's addresses
	return nil
}

// route brings rules and routes to the kernel.
func (d *dataplane) route(n *proxy.Node) error {
	was := d.routes.Load()
	want := kernel.Routes{Mark: d.cfg.RouteMark, Last: n.ServiceCIDRs, Addrs: d.held.outerAddrs()}
	if slices.Contains(n.Addrs, n.IP) {
		want.Source = n.IP
	}
	var writes int
	var err error
	switch {
	case was == nil || d.fresh:
		writes, err = d.router.Apply(want)
	case was.Equal(want):
		return nil
	default:
		writes, err = d.router.Change(*was, want)
	}
	d.report.routes += writes
	if err != nil {
		return err
	}
	d.routes.Store(&want)
	return nil
}

// rewrite brings the chains that differ to the kernel.
func (d *dataplane) rewrite(ctx context.Context, was, now []nft.Chain) error {
	tx := d.table.NewTransaction()
	rules := nft.Rewrite(tx, was, now)
	if tx.NumOperations() == 0 {
		return nil
	}
	d.report.bytes += len(tx.String())
	if err := d.table.Run(ctx, tx); err != nil {
		d.report.refusals++
		return err
	}
	d.report.elements += rules
	return nil
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

// send writes edits, in as many transactions as it takes.
func (d *dataplane) send(ctx context.Context, e nft.Edits) error {
	for some := range slices.Chunk(e.Settled(), d.batch) {
		if d.observe != nil {
			d.observe(some)
		}
		tx := d.table.NewTransaction()
		nft.Write(tx, some)
		d.report.bytes += len(tx.String())
		if err := d.table.Run(ctx, tx); err != nil {
			d.report.refusals++
			return err
		}
		for _, x := range some {
			d.report.elements++
			if x.Old == nil {
				d.held.elements++
			}
			if x.New == nil {
				d.held.elements--
			}
		}
	}
	return nil
}

// run changes virtual servers.
func (d *dataplane) run(ctx context.Context, commands []kernel.Command) ([]*kernel.Error, error) {
	refused, err := d.servers.Run(ctx, commands)
	if err != nil {
		return nil, err
	}
	d.report.objects += len(commands) - len(refused)
	d.report.refusals += len(refused)
	return refused, nil
}
