package nftables

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// change is what happens to one ServicePort, or to several of which one takes over a frontend of another.
type change struct {
	ports []portChange
	edits nft.Edits // but for shared elements
}

// portChange is one ServicePort's part of a change. Old and new are nil for none.
type portChange struct {
	old, new *port

	wasShared, isShared []shared
	leave, lead         []spec // chains that elements led to, and lead to, each as often as they do
}

func (p portChange) name() proxy.ServicePortName {
	if p.new != nil {
		return p.new.Name
	}
	return p.old.Name
}

// size is how many elements change at most.
func (c *change) size() int {
	n := len(c.edits.List)
	for _, p := range c.ports {
		n += max(len(p.wasShared), len(p.isShared))
	}
	return n
}

// newChange is the way from one state of a ServicePort to another.
func newChange(before, after *port) *change {
	p := portChange{old: before, new: after}
	was, now := render(before), render(after)
	p.wasShared, p.isShared = was.shared, now.shared
	p.leave, p.lead = was.targets(), now.targets()
	c := &change{ports: []portChange{p}}
	difference(&c.edits, was, now, portComment(p.name()))
	return c
}

// targets are the chains that elements lead to.
func (r rendered) targets() []spec {
	var all []spec
	for _, e := range r.own {
		if e.target != (spec{}) {
			all = append(all, e.target)
		}
	}
	return all
}

// changes are those that take what is held to target, in the order in which they should come. Refused is what cannot
// even be rendered.
func (d *dataplane) changes(target *proxy.Snapshot) (all []*change, refused []shelf.Offence) {
	h := d.held
	pods := h.writer.tellsPods()
	consider := func(name proxy.ServicePortName, sp *proxy.ServicePort) {
		old := h.ports[name]
		if old == nil && sp == nil || old != nil && old.ServicePort == sp && old.pods == pods {
			return
		}
		next, err := h.numbers.successor(old, sp, pods)
		if err != nil {
			refused = append(refused, shelf.Offence{Port: sp, Err: err})
			return
		}
		all = append(all, newChange(old, next))
	}
	if h.applied != nil {
		for name, c := range target.Changes(h.applied) {
			consider(name, c.New)
		}
	} else {
		for name, sp := range target.All() {
			consider(name, sp)
		}
		for name := range h.ports {
			if target.Get(name) == nil {
				consider(name, nil)
			}
		}
	}
	return inOrder(merge(all)), refused
}

// inOrder sorts priority services first.
func inOrder(all []*change) []*change {
	rank := func(c *change) int {
		if c.ports[0].new != nil && c.ports[0].new.Priority {
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b *change) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.ports[0].name().Compare(b.ports[0].name()))
	})
	return all
}

// merge joins changes of which one empties a place that another fills, so that they are never apart.
func merge(all []*change) []*change {
	if len(all) < 2 {
		return all
	}
	emptied := map[nft.Place]*change{}
	for _, c := range all {
		for _, x := range c.edits.List {
			if x.New == nil && (x.Set == frontends || x.Set == frontendPorts) {
				emptied[x.Place] = c
			}
		}
	}
	if len(emptied) == 0 {
		return all
	}
	into := map[*change]*change{}
	root := func(c *change) *change {
		for into[c] != nil {
			c = into[c]
		}
		return c
	}
	for _, c := range all {
		for _, x := range c.edits.List {
			if from := emptied[x.Place]; x.Old == nil && from != nil && root(from) != root(c) {
				into[root(c)] = root(from)
			}
		}
	}
	var roots []*change
	for _, c := range all {
		if r := root(c); r == c {
			roots = append(roots, c)
		} else {
			r.ports = append(r.ports, c.ports...)
		}
	}
	for _, r := range roots {
		r.rejoin(all, root)
	}
	return roots
}

// rejoin collects the edits of all changes that are now part of c: those that empty places first.
func (c *change) rejoin(all []*change, root func(*change) *change) {
	if len(c.ports) == 1 {
		return
	}
	var joined nft.Edits
	for _, emptying := range []bool{true, false} {
		for _, part := range all {
			if root(part) != c {
				continue
			}
			for _, x := range part.edits.List {
				if (x.Old != nil) == emptying {
					joined.Add(x)
				}
			}
		}
	}
	c.edits = joined
}

// maxTrials limits how long others wait for the search for a ServicePort that the kernel refuses. What has not been cleared
// by then is set aside together.
const maxTrials = 200

// execute brings changes to the kernel, and gives the ServicePorts that it refuses. Those are as they were before, and
// everything else is done.
func (d *dataplane) execute(ctx context.Context, all []*change) ([]shelf.Offence, error) {
	trials := maxTrials
	var refused []shelf.Offence
	for len(all) > 0 {
		n, elements := 1, all[0].size()
		for n < len(all) && elements+all[n].size() <= d.batch {
			elements += all[n].size()
			n++
		}
		found, err := d.try(ctx, all[:n], &trials)
		refused = append(refused, found...)
		if err != nil || len(found) > 0 && !d.fresh {
			return refused, err
		}
		all = all[n:]
	}
	return refused, nil
}

// try commits some changes together or, if the kernel refuses that, finds out which of them it takes.
func (d *dataplane) try(ctx context.Context, some []*change, trials *int) ([]shelf.Offence, error) {
	err := d.commit(ctx, d.table.NewTransaction(), some, d.batch)
	refusal, ok := errors.AsType[*nft.RefusedError](err)
	if !ok || refusal.Resource {
		return nil, err
	}
	if d.interferes(err) {
		return nil, err
	}
	*trials--
	if len(some) == 1 || *trials <= 0 || !d.fresh {
		var found []shelf.Offence
		for _, c := range some {
			for _, p := range c.ports {
				if p.new != nil {
					found = append(found, shelf.Offence{Port: p.new.ServicePort, Err: err})
				}
			}
		}
		if len(found) == 0 {
			return nil, err // it was only to be removed
		}
		return found, nil
	}
	half := len(some) / 2
	found, err := d.try(ctx, some[:half], trials)
	if err != nil {
		return found, err
	}
	more, err := d.try(ctx, some[half:], trials)
	return append(found, more...), err
}

// commit makes changes take effect, with what the transaction holds already: all at one moment unless they are more than
// batch elements.
func (d *dataplane) commit(ctx context.Context, tx *knftables.Transaction, some []*change, batch int) error {
	var joined nft.Edits
	for _, c := range some {
		for _, x := range c.edits.List {
			joined.Add(x)
		}
	}
	d.share(&joined, some, false)
	d.create(tx, some)
	err := d.write(ctx, tx, joined.Settled(), batch)
	if err != nil {
		d.share(nil, some, true)
		for _, c := range some {
			for _, p := range c.ports {
				d.held.numbers.drop(p.new, p.old)
			}
		}
		return err
	}
	for _, c := range some {
		for _, p := range c.ports {
			d.record(p)
		}
	}
	return nil
}

// share counts who wants which shared element, or takes that back.
func (d *dataplane) share(to *nft.Edits, some []*change, undo bool) {
	for _, c := range some {
		for _, p := range c.ports {
			was, now := p.wasShared, p.isShared
			if undo {
				was, now = now, was
			}
			d.held.owners.change(to, p.name().Service(), was, now)
		}
	}
}

// record notes what has been written.
func (d *dataplane) record(p portChange) {
	h := d.held
	h.numbers.drop(p.old, p.new)
	h.numbers.keep(p.new)
	if p.new == nil {
		delete(h.ports, p.name())
	} else {
		h.ports[p.name()] = p.new
	}
	for _, s := range p.lead {
		h.chains[s]++
		delete(h.idle, s.name())
	}
	for _, s := range p.leave {
		if h.chains[s]--; h.chains[s] == 0 {
			h.idle[s.name()] = d.now()
		}
	}
}

// write writes edits. If there are too many, backends that nothing leads to yet come
// before, and those that nothing leads to any more go after what leads to them, each in as many transactions as it takes.
func (d *dataplane) write(ctx context.Context, tx *knftables.Transaction, list []nft.Edit, batch int) error {
	if len(list) <= batch {
		return d.send(ctx, tx, list)
	}
	var before, between, after []nft.Edit
	for _, x := range list {
		switch {
		case !holdsBackends[x.Set]:
			between = append(between, x)
		case x.New != nil:
			before = append(before, x)
		default:
			after = append(after, x)
		}
	}
	sent := false
	for _, part := range slices.Concat(parts(before, batch), [][]nft.Edit{between}, parts(after, batch)) {
		if err := d.send(ctx, tx, part); err != nil {
			if sent {
				refusal, ok := errors.AsType[*nft.RefusedError](err)
				return partial{err, ok && !refusal.Resource}
			}
			return err
		}
		sent = true
		tx = d.table.NewTransaction()
	}
	return nil
}

// partial is a failure half-way. It is not a refusal of the whole, even if the rest was refused.
type partial struct {
	cause   error
	refused bool
}

func (p partial) Error() string { return "only a part was written: " + p.cause.Error() }

func parts(list []nft.Edit, size int) [][]nft.Edit {
	return slices.Collect(slices.Chunk(list, size))
}

func (d *dataplane) send(ctx context.Context, tx *knftables.Transaction, list []nft.Edit) error {
	nft.Write(tx, list)
	if err := d.run(ctx, tx); err != nil {
		return err
	}
	for _, x := range list {
		d.report.writes++
		if x.Old == nil {
			d.held.objects++
		}
		if x.New == nil {
			d.held.objects--
		}
	}
	return nil
}

// create adds the chains that changes need and that are not there.
func (d *dataplane) create(tx *knftables.Transaction, some []*change) {
	added := map[spec]bool{}
	for _, c := range some {
		for _, p := range c.ports {
			for _, s := range p.lead {
				if _, there := d.held.chains[s]; !there && !added[s] {
					added[s] = true
					tx.Add(&knftables.Chain{Name: s.name()})
					d.held.writer.chain(s).Write(tx)
				}
			}
		}
	}
}

// idleTime is how long a chain stays that nothing leads to: a Service that is scaled up and down needs it again.
const idleTime = time.Minute

// sweep deletes chains that have been idle for long enough. Older kernels notice only some time after a transaction that
// nothing leads to a chain any more.
func (d *dataplane) sweep(ctx context.Context) error {
	h, now := d.held, d.now()
	var names []string
	for name, since := range h.idle {
		if now.Sub(since) >= idleTime {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	tx := d.table.NewTransaction()
	for _, name := range names {
		tx.Flush(&knftables.Chain{Name: name}) // they may lead to each other
	}
	for _, name := range names {
		tx.Delete(&knftables.Chain{Name: name})
	}
	err := d.run(ctx, tx)
	if _, refused := errors.AsType[*nft.RefusedError](err); refused {
		for _, name := range names {
			h.idle[name] = now
		}
		return nil
	}
	if err != nil {
		d.held = nil
		return err
	}
	for _, name := range names {
		delete(h.idle, name)
	}
	for s, n := range h.chains {
		if n == 0 && slices.Contains(names, s.name()) {
			delete(h.chains, s)
		}
	}
	return nil
}
