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

// listFunc gives the rules of a chain as iptables-save shows them: "-A CHAIN …".
type listFunc func(table, chain string) ([]string, error)

// EnsureJumps implements Interface.
func (r *Runner) EnsureJumps(ctx context.Context, jumps []Jump) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	input, err := planJumps(jumps, r.listRules(ctx))
	if err != nil || len(input) == 0 {
		return err
	}
	if err := r.restore(ctx, input); err != nil {
		return fmt.Errorf("insert jumps: %w", err)
	}
	return nil
}

// RemoveJumps implements Interface.
func (r *Runner) RemoveJumps(ctx context.Context, prefix string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	input, err := planRemoval(prefix, r.listRules(ctx))
	if err != nil || len(input) == 0 {
		return err
	}
	if err := r.restore(ctx, input); err != nil {
		return fmt.Errorf("remove jumps: %w", err)
	}
	return nil
}

// listRules lists chains of the kernel. The library cannot stop its program, but lets it wait for the lock
// no longer than the configuration says.
func (r *Runner) listRules(ctx context.Context) listFunc {
	return func(table, chain string) ([]string, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if exists, err := r.tools.holds(r.family, table); err != nil || !exists {
			return nil, err
		}
		lines, err := r.lister.List(table, chain)
		if err != nil {
			return nil, fmt.Errorf("list %s of table %s: %w", chain, table, err)
		}
		return slices.DeleteFunc(lines, func(line string) bool { return !strings.HasPrefix(line, "-A ") }), nil
	}
}

// planJumps is the restore input that makes jumps hold; empty if they do.
func planJumps(jumps []Jump, list listFunc) ([]byte, error) {
	plan := tableWriter{}
	for _, group := range groupJumps(jumps) {
		rules, err := list(group[0].Table, group[0].Chain)
		if err != nil {
			return nil, err
		}
		ours := matchJumps(rules, group)
		if inPlace(rules, ours, len(group)) {
			continue
		}
		for i, rule := range rules {
			if ours[i] != notOurs {
				plan.add(group[0].Table, "-D"+strings.TrimPrefix(rule, "-A"))
			}
		}
		// The last one first: iptables-nft cannot insert before a rule of the same commit.
		for _, j := range slices.Backward(group) {
			plan.add(j.Table, fmt.Sprintf("-I %s %s", j.Chain, j.spec()))
		}
	}
	return plan.bytes(), nil
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

// matchJumps says for each rule which wanted jump it is.
func matchJumps(rules []string, group []Jump) []int {
	found := make([]int, len(rules))
	taken := make([]bool, len(group))
	for i, rule := range rules {
		found[i] = matchJump(rule, group, taken)
	}
	return found
}

func matchJump(rule string, group []Jump, taken []bool) int {
	result := notOurs
	for i, j := range group {
		if targetOf(rule) != j.Target {
			continue
		}
		result = stale
		if !taken[i] && sameRule(rule, "-A "+j.Chain+" "+j.spec()) {
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

// inPlace tells whether nothing needs to be done: every wanted jump is there once, in order, and no rule
// of kube-proxy's before the last of them.
func inPlace(rules []string, ours []int, wanted int) bool {
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
	words := slices.Clone(j.Match)
	if j.Comment != "" {
		words = append(words, "-m", "comment", "--comment", j.Comment)
	}
	words = append(words, "-j", j.Target)
	for i, word := range words {
		words[i] = quote(word)
	}
	return strings.Join(words, " ")
}

// planRemoval is the restore input that deletes the jumps to chains of a prefix; empty if there are none.
func planRemoval(prefix string, list listFunc) ([]byte, error) {
	plan := tableWriter{}
	for _, table := range ourTables {
		for _, chain := range builtin[table] {
			rules, err := list(table, chain)
			if err != nil {
				return nil, err
			}
			for _, rule := range rules {
				if strings.HasPrefix(targetOf(rule), prefix) {
					plan.add(table, "-D"+strings.TrimPrefix(rule, "-A"))
				}
			}
		}
	}
	return plan.bytes(), nil
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
