package xtables

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
)

// ourTables are those in which we ever have chains.
var ourTables = []string{"nat", "filter"}

// kubeProxy are the chains of kube-proxy that its rules in built-in chains lead to. These must not stand before ours:
// of what kube-proxy has left behind, when it is gone, nobody keeps the endpoints up to date. Other chains whose names
// start alike are not its own: those of network policies (KUBE-ROUTER-…) have to come first.
var kubeProxy = []string{
	"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-NODE-PORT", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL", "KUBE-POSTROUTING",
}

// builtin are the chains that the kernel calls.
var builtin = map[string][]string{
	"nat":    {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
	"filter": {"INPUT", "FORWARD", "OUTPUT"},
	"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"raw":    {"PREROUTING", "OUTPUT"},
}

// listing is the rules of a chain.
type listing struct {
	// rules are as iptables-save shows them: "-A CHAIN …".
	rules []string

	// native, if iptables cannot show them, has the same rules. Then those above tell only where
	// they lead, and has tells whether a jump is among them.
	native []nativeRule
	has    func(Jump) (bool, error)
}

type listFunc func(table, chain string) (listing, error)

// edit is a change to jumps. It inserts before it deletes natively: no packet misses a jump.
type edit struct {
	input  tableWriter // for iptables-restore
	native []nativeRule
}

// remove deletes a rule of a listing.
func (e *edit) remove(table string, l listing, i int) {
	if l.native != nil {
		e.native = append(e.native, l.native[i])
		return
	}
	e.input.add(table, deletion(l.rules[i]))
}

// deletion makes the command that deletes a rule of the one that appends it.
func deletion(rule string) string { return "-D" + strings.TrimPrefix(rule, "-A") }

// EnsureJumps implements Interface.
func (r *Runner) EnsureJumps(ctx context.Context, jumps []Jump) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	plan, err := planJumps(jumps, r.listRules(ctx))
	if err == nil {
		err = r.edit(ctx, plan)
	}
	if err != nil {
		return fmt.Errorf("insert jumps: %w", err)
	}
	return nil
}

// RemoveJumps implements Interface.
func (r *Runner) RemoveJumps(ctx context.Context, prefix string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	plan, err := planRemoval(prefix, r.listRules(ctx))
	if err == nil {
		err = r.edit(ctx, plan)
	}
	if err != nil {
		return fmt.Errorf("remove jumps: %w", err)
	}
	return nil
}

func (r *Runner) edit(ctx context.Context, e edit) error {
	if input := e.input.bytes(); len(input) > 0 {
		if err := r.restore(ctx, input); err != nil {
			return err
		}
	}
	if len(e.native) == 0 {
		return nil
	}
	return r.deleteNative(ctx, e.native)
}

func (r *Runner) deleteNative(ctx context.Context, rules []nativeRule) error {
	limited, cancel := r.limit(ctx)
	defer cancel()
	same := tableWriter{} // what it would be as restore input
	for _, rule := range rules {
		same.add(rule.table, deletion(rule.String()))
	}
	if err := deleteNative(limited, r.family, rules, &r.children); err != nil {
		r.ledger.doubtful(same.bytes())
		return fmt.Errorf("delete rules by handle: %w", err)
	}
	r.ledger.record(same.bytes())
	return nil
}

// listRules lists chains of the kernel. The library cannot stop its program, but lets it wait for the lock
// no longer than the configuration says.
func (r *Runner) listRules(ctx context.Context) listFunc {
	return func(table, chain string) (listing, error) {
		if err := ctx.Err(); err != nil {
			return listing{}, err
		}
		if exists, err := r.tools.holds(r.family, table); err != nil || !exists {
			return listing{}, err
		}
		lines, err := r.lister.List(table, chain)
		if err != nil && strings.Contains(err.Error(), incompatible) {
			return r.listNative(ctx, table, chain)
		}
		if err != nil {
			return listing{}, fmt.Errorf("list %s of table %s: %w", chain, table, err)
		}
		return listing{rules: slices.DeleteFunc(lines, func(line string) bool { return !strings.HasPrefix(line, "-A ") })}, nil
	}
}

func (r *Runner) listNative(ctx context.Context, table, chain string) (listing, error) {
	limited, cancel := r.limit(ctx)
	defer cancel()
	rules, err := nativeRules(limited, r.family, table, chain)
	if err != nil {
		return listing{}, fmt.Errorf("dump %s of table %s: %w", chain, table, err)
	}
	l := listing{native: rules, has: func(j Jump) (bool, error) { return r.lister.Exists(j.Table, j.Chain, j.words()...) }}
	for _, rule := range rules {
		l.rules = append(l.rules, rule.String())
	}
	return l, nil
}

// planJumps is the edit that makes jumps hold; empty if they do.
func planJumps(jumps []Jump, list listFunc) (plan edit, err error) {
	for _, group := range groupJumps(jumps) {
		l, err := list(group[0].Table, group[0].Chain)
		if err != nil {
			return edit{}, err
		}
		ours := l.match(group)
		done, err := l.inPlace(ours, group)
		if err != nil {
			return edit{}, err
		}
		if done {
			continue
		}
		for i := range l.rules {
			if ours[i] != notOurs {
				plan.remove(group[0].Table, l, i)
			}
		}
		// The last one first: iptables-nft cannot insert before a rule of the same commit.
		for _, j := range slices.Backward(group) {
			plan.input.add(j.Table, fmt.Sprintf("-I %s %s", j.Chain, j.spec()))
		}
	}
	return plan, nil
}

// groupJumps gathers the jumps of each built-in chain, in the given order.
func groupJumps(jumps []Jump) (groups [][]Jump) {
	index := map[[2]string]int{}
	for _, j := range jumps {
		key := [2]string{j.Table, j.Chain}
		at, ok := index[key]
		if !ok {
			at = len(groups)
			index[key] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], j)
	}
	return groups
}

// A rule is a wanted jump, given by its index in the group, or one of these.
const (
	notOurs = -1
	stale   = -2 // leads to one of our targets, but is not, or no longer, wanted
)

// match says for each rule which wanted jump it is. Of native rules it is the first that leads there.
func (l listing) match(group []Jump) []int {
	found := make([]int, len(l.rules))
	taken := make([]bool, len(group))
	for i, rule := range l.rules {
		found[i] = l.matchOne(rule, group, taken)
	}
	return found
}

func (l listing) matchOne(rule string, group []Jump, taken []bool) int {
	result := notOurs
	for i, j := range group {
		if targetOf(rule) != j.Target {
			continue
		}
		result = stale
		if !taken[i] && (l.native != nil || sameRule(rule, "-A "+j.Chain+" "+j.spec())) {
			taken[i] = true
			return i
		}
	}
	return result
}

// sameRule compares rules by their words in any order: a release may print matches in another order than
// they were given in.
func sameRule(a, b string) bool {
	x, errX := split(a)
	y, errY := split(b)
	slices.Sort(x)
	slices.Sort(y)
	return errX == nil && errY == nil && slices.Equal(x, y)
}

// inPlace tells whether nothing needs to be done. Of native rules that lead where they should, it asks iptables
// whether they are the wanted ones.
func (l listing) inPlace(ours []int, group []Jump) (bool, error) {
	if !inOrder(l.rules, ours, len(group)) {
		return false, nil
	}
	if l.native == nil {
		return true, nil
	}
	for _, j := range group {
		if found, err := l.has(j); err != nil || !found {
			return false, err
		}
	}
	return true, nil
}

// inOrder tells whether every wanted jump is there once, in order, and no rule of kube-proxy's before
// the last of them.
func inOrder(rules []string, ours []int, wanted int) bool {
	next := 0
	for i, rule := range rules {
		switch {
		case ours[i] == next:
			next++
		case ours[i] != notOurs:
			return false
		case next < wanted && slices.Contains(kubeProxy, targetOf(rule)):
			return false
		}
	}
	return next == wanted
}

// spec is the rule without its chain.
func (j Jump) spec() string {
	words := j.words()
	for i, word := range words {
		words[i] = quote(word)
	}
	return strings.Join(words, " ")
}

// words are those of spec.
func (j Jump) words() []string {
	words := slices.Clone(j.Match)
	if j.Comment != "" {
		words = append(words, "-m", "comment", "--comment", j.Comment)
	}
	return append(words, "-j", j.Target)
}

// planRemoval is the edit that deletes the jumps to chains of a prefix; empty if there are none.
func planRemoval(prefix string, list listFunc) (plan edit, err error) {
	for _, table := range ourTables {
		for _, chain := range builtin[table] {
			ours := func(target string) bool { return strings.HasPrefix(target, prefix) }
			if err := plan.removeJumps(table, chain, ours, list); err != nil {
				return edit{}, err
			}
		}
	}
	return plan, nil
}

// removeJumps deletes the rules of a chain that lead to chains of which ours tells.
func (e *edit) removeJumps(table, chain string, ours func(target string) bool, list listFunc) error {
	l, err := list(table, chain)
	if err != nil {
		return err
	}
	for i, rule := range l.rules {
		if ours(targetOf(rule)) {
			e.remove(table, l, i)
		}
	}
	return nil
}

// tableWriter gathers lines by table.
type tableWriter struct {
	order []string
	lines map[string][]string
}

func (w *tableWriter) add(table, line string) {
	if w.lines == nil {
		w.lines = map[string][]string{}
	}
	if _, ok := w.lines[table]; !ok {
		w.order = append(w.order, table)
	}
	w.lines[table] = append(w.lines[table], line)
}

func (w *tableWriter) bytes() []byte {
	var b bytes.Buffer
	for _, table := range w.order {
		fmt.Fprintf(&b, "*%s\n%s\nCOMMIT\n", table, strings.Join(w.lines[table], "\n"))
	}
	return b.Bytes()
}
