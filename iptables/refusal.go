package iptables

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// refusal is input that iptables-restore did not accept, though nothing was in its way.
type refusal struct {
	*xtables.RestoreError
	line string // to blame, empty if unknown
	drop bool   // the input deletes chains
	lost bool   // the line leads to a chain that should have been there
}

// refusalOf is a *refusal if input is to blame for err, else err.
func refusalOf(err error, input []byte) error {
	refused, ok := errors.AsType[*xtables.RestoreError](err)
	if !ok || refused.Resource {
		return err
	}
	line := lineOf(input, refused.Line)
	return &refusal{
		RestoreError: refused,
		line:         line,
		drop:         bytes.Contains(input, []byte("\n-X ")),
		lost:         leadsOut(line, input),
	}
}

// leadsOut tells whether a rule leads to a chain of ours that the input does not write.
func leadsOut(line string, input []byte) bool {
	_, target, jumps := strings.Cut(line, " -j ")
	return jumps && strings.HasPrefix(target, xtables.DefaultPrefix) && !bytes.Contains(input, []byte("\n:"+target+" "))
}

// Unwrap gives the error of the boundary.
func (r *refusal) Unwrap() error { return r.RestoreError }

// lineOf is the n-th line, counted from 1; empty if there is none.
func lineOf(input []byte, n int) string {
	if n < 1 {
		return ""
	}
	at := 0
	for line := range bytes.Lines(input) {
		if at++; at == n {
			return string(bytes.TrimSuffix(line, []byte("\n")))
		}
	}
	return ""
}

// mayBeDeletion tells whether the deletion of a chain may be what was refused.
func (r *refusal) mayBeDeletion() bool {
	return r.drop && (r.line == "" || strings.HasPrefix(r.line, "-X "))
}

// offenders finds the ServicePorts of target that are to blame: by the refused line or, if that tells
// nothing, by trying them out. None means that the blame is not theirs. A kind of which a line blamed one
// before is tried out too, for each attempt that blames one more costs as much as all that is written. Told
// holds those kinds.
func (d *dataplane) offenders(ctx context.Context, refused *refusal, target *proxy.Snapshot, told map[string]bool) ([]shelf.Offence, error) {
	suspects := d.suspects(target)
	var found []shelf.Offence
	if sp := ownerOf(refused.line, suspects, target.Node()); sp != nil {
		found = []shelf.Offence{{Port: sp, Err: refused.RestoreError}}
		kinds := kindsOf(suspects, target.Node())
		if !told[kinds[sp]] {
			told[kinds[sp]] = true
			return found, nil
		}
		suspects = slices.DeleteFunc(suspects, func(other *proxy.ServicePort) bool { return other == sp || kinds[other] != kinds[sp] })
	}
	if len(suspects) == 0 {
		return found, nil
	}
	t := trial{cfg: d.cfg, ipt: d.ipt, how: how{batch: d.batch}, node: target.Node(), none: d.none, left: maxTrials}
	more, err := t.search(ctx, suspects)
	if wiped := t.wipe(ctx); wiped != nil {
		// What a trial left behind is found and removed by a load.
		d.maybe = nil
		err = errors.Join(err, wiped)
	}
	return append(found, more...), err
}

// suspects are the ServicePorts that target would change, by name.
func (d *dataplane) suspects(target *proxy.Snapshot) []*proxy.ServicePort {
	var applied *proxy.Snapshot
	if d.maybe != nil {
		applied = d.maybe[0].snap
	}
	var list []*proxy.ServicePort
	for _, c := range changes(applied, target) {
		if c.New != nil {
			list = append(list, c.New)
		}
	}
	return list
}

// ownerOf is the suspect whose rule or chain the line of restore input is about, nil if none is.
func ownerOf(line string, suspects []*proxy.ServicePort, n *proxy.Node) *proxy.ServicePort {
	words := strings.Fields(strings.TrimPrefix(strings.TrimPrefix(line, "-A "), ":"))
	if len(words) == 0 {
		return nil
	}
	r := newRenderer(n)
	var own chains
	var adds []entry
	for _, sp := range suspects {
		own.reset()
		r.servicePort(&own, sp)
		if slices.ContainsFunc(own.list, func(c chain) bool { return c.name == words[0] }) {
			return sp
		}
		adds = r.entries(adds[:0], sp)
		for _, e := range adds {
			d := drawer{n.Family, e.index}
			if d.name(e.key) == words[0] || d.renders(e, line) {
				return sp
			}
		}
	}
	return nil
}
