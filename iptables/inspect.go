package iptables

import (
	"bytes"
	"context"
	"net/netip"
	"strings"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// inspector reads the kernel to compare it with what should be there.
type inspector interface {
	Inspect(ctx context.Context, want xtables.Wanted) ([]proxy.Difference, error)
	Show(ctx context.Context, want xtables.Wanted) ([]xtables.Rule, []proxy.Difference, error)
}

// Inspect implements proxy.Inspector: our chains are compared rule by rule, as are the rules that lead to them.
func (d *dataplane) Inspect(ctx context.Context, want *proxy.Snapshot) ([]proxy.Difference, error) {
	next, _ := d.none.next(want)
	p := d.cfg.plan([]*tables{d.none}, nil, next)
	var all []proxy.Difference
	for _, s := range p {
		found, err := d.inspector.Inspect(ctx, s.wanted(jumps(want.Node())))
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	name(all, want)
	return all, nil
}

// wanted is what a table holds to which a section was written that began with nothing.
func (s *section) wanted(all []xtables.Jump) xtables.Wanted {
	w := xtables.Wanted{Table: s.table, Chains: map[string][]string{}, Shared: s.table == nat}
	for head := range bytes.Lines(s.heads.Bytes()) {
		name, _, _ := strings.Cut(string(head[1:]), " ")
		w.Chains[name] = nil
	}
	for rule := range strings.Lines(s.rules.String()) {
		rule = strings.TrimSuffix(rule, "\n")
		chain, _, _ := strings.Cut(rule[len("-A "):], " ")
		w.Chains[chain] = append(w.Chains[chain], rule)
	}
	for _, j := range all {
		if j.Table == s.table {
			w.Jumps = append(w.Jumps, j)
		}
	}
	return w
}

// name adds to differences whose they are.
func name(all []proxy.Difference, want *proxy.Snapshot) {
	if len(all) == 0 {
		return
	}
	owners := owners(want)
	for i, x := range all {
		all[i].Service = serviceOf(x.Object, owners)
	}
}

// owners are the ServicePorts by the chains that are theirs alone, and the Services by their addresses.
func owners(want *proxy.Snapshot) map[string]string {
	of := map[string]string{}
	r := newRenderer(want.Node())
	var out chains
	for name, sp := range want.All() {
		out.reset()
		r.servicePort(&out, sp)
		for _, c := range out.list {
			of[c.name] = name.String()
		}
		for _, f := range sp.Frontends {
			addr := netip.PrefixFrom(f.Addr.Addr(), r.family.Bits()).String()
			if first, shared := of[addr]; shared && first != name.Service().String() {
				of[addr] = "" // several Services have it
			} else {
				of[addr] = name.Service().String()
			}
		}
	}
	return of
}

// serviceOf finds out whose a chain or rule is: by the rule's comment, by the chain or where the rule leads, or by the address.
func serviceOf(object string, owners map[string]string) string {
	_, comment, _ := strings.Cut(object, "--comment ")
	comment, _, _ = strings.Cut(strings.Trim(comment, `"`), " ")
	if namespace, _, ok := strings.Cut(comment, "/"); ok && !strings.Contains(namespace, ":") {
		return comment
	}
	for word := range strings.FieldsSeq(object) {
		if name := owners[word]; name != "" {
			return name
		}
	}
	return ""
}
