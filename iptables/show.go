package iptables

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// Show implements proxy.Shower: the chains that packets to the frontends pass are compared rule by rule; the rules among them that
// are about the ServicePort are shown, with what they took.
func (d *dataplane) Show(ctx context.Context, want *proxy.Snapshot, port *proxy.ServicePort, frontends []proxy.Frontend) ([]proxy.Object, error) {
	t := d.current.Load()
	if t == nil || t.snap != want {
		t, _ = d.none.next(want)
	}
	w := way{cfg: d.cfg, tables: t, port: port, frontends: frontends, own: map[string]bool{}, rank: map[string]int{}}
	var good, wrong []proxy.Object
	for _, table := range []string{nat, filter} {
		wanted := w.wanted(table)
		rules, differences, err := d.inspector.Show(ctx, wanted)
		if err != nil {
			return nil, err
		}
		found := map[string]bool{}
		for i := range differences {
			differences[i].Service = port.Name.String()
			wrong = append(wrong, proxy.Object{Name: differences[i].Object, Differs: &differences[i]})
			found[differences[i].Object], found[differences[i].Detail] = true, true
		}
		w.sort(rules)
		for _, rule := range rules {
			name := "table " + table + ", rule " + rule.Text
			if w.concerns(rule.Text, wanted) && !found[name] && !found[rule.Text] {
				good = append(good, proxy.Object{Name: name, Count: &proxy.Count{Packets: rule.Packets, Bytes: rule.Bytes}})
			}
		}
	}
	return append(good, wrong...), nil
}

// way is that of packets to some frontends of a ServicePort.
type way struct {
	cfg       Config
	tables    *tables
	port      *proxy.ServicePort
	frontends []proxy.Frontend

	own  map[string]bool // chains that are the ServicePort's alone
	rank map[string]int  // of chains, from 1 on: the way goes through them in this order
}

// sort puts rules in the order of the way; those that lead to it come first.
func (w way) sort(rules []xtables.Rule) {
	rankOf := func(r xtables.Rule) int {
		_, rest, _ := strings.Cut(r.Text, " ")
		chain, _, _ := strings.Cut(rest, " ")
		return w.rank[chain]
	}
	slices.SortStableFunc(rules, func(a, b xtables.Rule) int { return cmp.Compare(rankOf(a), rankOf(b)) })
}

// wanted is the chains on the way through a table.
func (w way) wanted(table string) xtables.Wanted {
	node := w.tables.node()
	r := newRenderer(node)
	var out chains
	w.cfg.base(&out, table, node, &w.tables.trees)
	out.list = slices.DeleteFunc(out.list, func(c chain) bool { return c.name == healthChain || c.name == firewallChain })
	for _, e := range r.entries(nil, w.port) {
		if tableOf[e.index] == table && slices.ContainsFunc(w.frontends, func(f proxy.Frontend) bool { return w.leads(e, f) }) {
			drawer{node.Family, e.index}.way(&out, w.tables.trees[e.index], e.key)
		}
	}
	if table == nat {
		from := len(out.list)
		r.servicePort(&out, w.port)
		for _, c := range out.list[from:] {
			w.own[c.name] = true
		}
	}
	wanted := xtables.Wanted{Table: table, Chains: map[string][]string{}}
	for _, c := range out.list {
		text := strings.TrimSuffix(string(out.of(c)), "\n")
		w.rank[c.name] = len(w.rank) + 1
		if wanted.Chains[c.name] = nil; text != "" {
			wanted.Chains[c.name] = strings.Split(text, "\n")
		}
	}
	for _, j := range jumps(node) {
		if j.Table == table {
			wanted.Jumps = append(wanted.Jumps, j)
		}
	}
	return wanted
}

// leads tells whether an entry of a tree is about a frontend.
func (w way) leads(e entry, f proxy.Frontend) bool {
	serve, refuse := indexesOf(f.Kind)
	known := f.Kind == proxy.ClusterIP && e.index == byKnown
	return (e.index == serve || e.index == refuse || known) && e.key == key(e.index, f.Addr.Addr(), w.port.Name.Protocol, f.Addr.Port())
}

// way renders the chains that packets of a key pass.
func (d drawer) way(out *chains, t tree, key string) {
	for n := t.root; n != nil && n.size > 1; n = n.child(key) {
		d.node(out, n)
		if n.children == nil {
			break
		}
	}
	d.rules(out, t.get(key))
}

// concerns tells whether a rule of a chain on the way is about the ServicePort, and not about others whose packets go the same way.
func (w way) concerns(rule string, wanted xtables.Wanted) bool {
	words := strings.Fields(rule)
	if len(words) < 2 || w.own[words[1]] {
		return true
	}
	for _, f := range w.frontends {
		if slices.Contains(words, netip.PrefixFrom(f.Addr.Addr(), f.Addr.Addr().BitLen()).String()) {
			return true
		}
	}
	if strings.Contains(rule, `--comment "`+w.port.Name.String()+" ") {
		return true
	}
	_, leads := wanted.Chains[words[len(words)-1]]
	return leads
}
