package xtables

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// Wanted is what a table should hold of ours.
type Wanted struct {
	Table string

	// Chains has the rules of each of our chains, as lines of restore input: "-A CHAIN …".
	Chains map[string][]string

	// Jumps are those of the table, in order.
	Jumps []Jump

	// Shared says that SharedChain must be there, whatever it holds.
	Shared bool
}

// Inspect lists how a table differs from what it should hold. It writes nothing, and may run beside the other methods. Where
// iptables cannot show the table, it is known only how many rules each chain has.
func (r *Runner) Inspect(ctx context.Context, want Wanted) ([]proxy.Difference, error) {
	ctx, cancel := r.limit(ctx)
	defer cancel()
	if exists, err := r.tools.holds(r.family, want.Table); err != nil {
		return nil, err
	} else if !exists {
		return []proxy.Difference{{Kind: proxy.Missing, Object: "table " + want.Table}}, nil
	}
	i := newInspection(r.family, r.cfg.Prefix, want)
	err := r.tools.stream(ctx, want.Table, i.parse)
	if errors.Is(err, errIncompatible) {
		found, err := nativeContents(ctx, r.family, want.Table, r.cfg.Prefix)
		if err != nil {
			return nil, fmt.Errorf("dump table %s: %w", want.Table, err)
		}
		return want.differsFrom(found), nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s -t %s: %w", r.tools.saver, want.Table, err)
	}
	return i.differences, nil
}

// inspection compares a table, chain by chain as it is listed: a large one is never held whole.
type inspection struct {
	family proxy.Family
	prefix string
	want   Wanted

	found  map[string]int  // our chains, with the number of their rules
	others map[string]bool // our chains to which chains of others lead
	seen   map[string]bool // chains that were compared

	chain string // whose rules are being listed
	rules []string
	count []Rule // the same with what they took, if it is partial

	partial bool   // only what is wanted matters
	shown   []Rule // then: those of wanted chains, and those that lead to them

	differences []proxy.Difference
}

func newInspection(f proxy.Family, prefix string, want Wanted) *inspection {
	return &inspection{
		family: f, prefix: prefix, want: want, found: map[string]int{}, others: map[string]bool{}, seen: map[string]bool{},
	}
}

// parse reads what iptables-save prints about the table.
func (i *inspection) parse(r io.Reader) error {
	shared := false
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		line := lines.Text()
		var rule Rule
		if i.partial {
			rule = cutCount(line)
			line = rule.Text
		}
		switch {
		case strings.HasPrefix(line, "#") && strings.Contains(line, incompatible):
			return fmt.Errorf("%w: %s", errIncompatible, line)
		case strings.HasPrefix(line, ":"):
			name, _, _ := strings.Cut(line[1:], " ")
			shared = shared || name == SharedChain
			if strings.HasPrefix(name, i.prefix) {
				i.found[name] = 0
			}
		case strings.HasPrefix(line, "-A "):
			chain, _, _ := strings.Cut(line[3:], " ")
			if chain != i.chain {
				i.finish()
				i.chain = chain
			}
			i.rules = append(i.rules, line)
			if i.partial {
				i.count = append(i.count, rule)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	i.finish()
	i.end(shared)
	return nil
}

func (i *inspection) add(kind proxy.DifferenceKind, object, detail string) {
	i.differences = append(i.differences, proxy.Difference{Kind: kind, Object: "table " + i.want.Table + ", " + object, Detail: detail})
}

// finish compares the chain whose rules have been listed.
func (i *inspection) finish() {
	i.show()
	defer func() { i.rules, i.count = i.rules[:0], i.count[:0] }()
	if _, ours := i.found[i.chain]; ours {
		i.found[i.chain] = len(i.rules)
		if want, wanted := i.want.Chains[i.chain]; wanted {
			i.seen[i.chain] = true
			i.compare(i.chain, want, i.rules)
		}
		return
	}
	builtIn := slices.Contains(builtin[i.want.Table], i.chain)
	for _, rule := range i.rules {
		if target := targetOf(rule); !builtIn && strings.HasPrefix(target, i.prefix) {
			i.others[target] = true
		}
	}
	if builtIn {
		i.seen[i.chain] = true
		i.compareJumps(i.chain, i.rules)
	}
}

// show keeps the rules of the chain that are asked for.
func (i *inspection) show() {
	_, wanted := i.want.Chains[i.chain]
	for _, rule := range i.count {
		if _, leads := i.want.Chains[targetOf(rule.Text)]; wanted || leads {
			i.shown = append(i.shown, rule)
		}
	}
}

// end finds what is not there, and what nobody wants.
func (i *inspection) end(shared bool) {
	if i.want.Shared && !shared {
		i.add(proxy.Missing, "chain "+SharedChain, "")
	}
	for _, chain := range sortedKeys(i.want.Chains) {
		if _, there := i.found[chain]; !there {
			i.add(proxy.Missing, "chain "+chain, "")
		} else if !i.seen[chain] {
			i.compare(chain, i.want.Chains[chain], nil)
		}
	}
	if i.partial {
		i.found = nil // others are none of our business
	}
	for _, chain := range sortedKeys(i.found) {
		// A chain to which rules of others lead cannot be deleted; it is empty then.
		if _, wanted := i.want.Chains[chain]; !wanted && (i.found[chain] > 0 || !i.others[chain]) {
			i.add(proxy.Foreign, "chain "+chain, "")
		}
	}
	for _, chain := range builtin[i.want.Table] {
		if !i.seen[chain] {
			i.compareJumps(chain, nil)
		}
	}
}

// compare compares the rules of a chain. A rule in the place of another one is an altered rule.
func (i *inspection) compare(chain string, want, have []string) {
	if slices.Equal(want, have) {
		return
	}
	wanted, found := i.canonical(want), i.canonical(have)
	if slices.Equal(wanted, found) {
		return
	}
	lack, spare := unmatched(wanted, found), unmatched(found, wanted)
	if len(lack)+len(spare) == 0 {
		i.add(proxy.Altered, "chain "+chain, "its rules are in another order")
	}
	for n, rule := range want {
		switch {
		case lack[n] && spare[n]:
			i.add(proxy.Altered, "rule "+rule, have[n])
		case lack[n]:
			i.add(proxy.Missing, "rule "+rule, "")
		}
	}
	for n, rule := range have {
		if spare[n] && !lack[n] {
			i.add(proxy.Foreign, "rule "+rule, "")
		}
	}
}

func (i *inspection) canonical(rules []string) []string {
	all := make([]string, len(rules))
	for n, rule := range rules {
		_, args, _ := strings.Cut(strings.TrimPrefix(rule, "-A "), " ")
		all[n] = canonical(i.family, args)
	}
	return all
}

// unmatched are the places of those of a list that another one lacks, each as often as it lacks them.
func unmatched(list, other []string) map[int]bool {
	count := make(map[string]int, len(other))
	for _, x := range other {
		count[x]++
	}
	places := map[int]bool{}
	for n, x := range list {
		if count[x]--; count[x] < 0 {
			places[n] = true
		}
	}
	return places
}

// compareJumps compares what leads from a built-in chain to ours.
func (i *inspection) compareJumps(chain string, rules []string) {
	var group []Jump
	for _, j := range i.want.Jumps {
		if j.Chain == chain {
			group = append(group, j)
		}
	}
	l := listing{rules: rules}
	ours := l.match(group)
	before := len(i.differences)
	for n, j := range group {
		if !slices.Contains(ours, n) {
			i.add(proxy.Missing, "rule -A "+chain+" "+j.spec(), "")
		}
	}
	for n, rule := range rules {
		if ours[n] == stale || ours[n] == notOurs && strings.HasPrefix(targetOf(rule), i.prefix) {
			i.add(proxy.Foreign, "rule "+rule, "")
		}
	}
	if len(i.differences) == before && !inOrder(rules, ours, len(group)) {
		i.add(proxy.Altered, "chain "+chain, "the rules that lead to our chains are in another order, or behind one of kube-proxy's")
	}
}

// differsFrom compares what is known of a table that iptables cannot show.
func (w Wanted) differsFrom(found contents) []proxy.Difference {
	i := &inspection{want: w}
	for _, chain := range sortedKeys(w.Chains) {
		rules, there := found.chains[chain]
		switch want := len(w.Chains[chain]); {
		case !there:
			i.add(proxy.Missing, "chain "+chain, "")
		case rules != want:
			i.add(proxy.Altered, "chain "+chain, fmt.Sprintf("%d rules instead of %d", rules, want))
		}
	}
	for _, chain := range sortedKeys(found.chains) {
		if _, wanted := w.Chains[chain]; !wanted && found.chains[chain] > 0 {
			i.add(proxy.Foreign, "chain "+chain, "")
		}
	}
	if w.Shared && !found.shared[SharedChain] {
		i.add(proxy.Missing, "chain "+SharedChain, "")
	}
	for _, j := range w.Jumps {
		if found.jumps[jump{j.Chain, j.Target}] == 0 {
			i.add(proxy.Missing, "rule -A "+j.Chain+" "+j.spec(), "")
		}
	}
	return i.differences
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
