package xtables

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Limits of the real ones, the stricter where the backends differ.
const (
	maxChainName = 28
	maxNesting   = 15 // user-defined chains on a packet's way; a 16th is one too many for backend nft
)

// fakeTable is what a table holds after its last commit.
type fakeTable struct {
	chains map[string]*fakeChain
	refs   map[string]int // rules that jump to a chain, by its name
}

// fakeChain does not change once it is in a fakeTable.
type fakeChain struct {
	builtin bool
	rules   []fakeRule
}

func newFakeTable(builtin []string) *fakeTable {
	t := &fakeTable{chains: map[string]*fakeChain{}, refs: map[string]int{}}
	for _, name := range builtin {
		t.chains[name] = &fakeChain{builtin: true}
	}
	return t
}

func (t *fakeTable) dump(b *strings.Builder, name string) {
	var declared, rules strings.Builder
	for _, chain := range slices.Sorted(maps.Keys(t.chains)) {
		c := t.chains[chain]
		if !c.builtin {
			fmt.Fprintf(&declared, ":%s - [0:0]\n", chain)
		}
		for _, rule := range c.rules {
			fmt.Fprintf(&rules, "-A %s %s\n", chain, rule.text)
		}
	}
	if declared.Len()+rules.Len() > 0 {
		fmt.Fprintf(b, "*%s\n%s%sCOMMIT\n", name, declared.String(), rules.String())
	}
}

// fakeTx is a table while it is written. Until commit the table itself is as before.
type fakeTx struct {
	table  *fakeTable
	chains map[string]*fakeChain
	refs   map[string]int
	fresh  map[string]bool // chains that are ours to change
	grown  map[string]bool // chains that got rules
}

func (t *fakeTable) begin() *fakeTx {
	return &fakeTx{table: t, chains: maps.Clone(t.chains), refs: maps.Clone(t.refs), fresh: map[string]bool{}, grown: map[string]bool{}}
}

var (
	errNoChain = errors.New("no chain by that name")
	errNoRule  = errors.New("no such rule in that chain")
)

// get gives a chain that may be changed.
func (tx *fakeTx) get(name string) (*fakeChain, error) {
	c, ok := tx.chains[name]
	if !ok {
		return nil, errNoChain
	}
	if !tx.fresh[name] {
		c = &fakeChain{builtin: c.builtin, rules: slices.Clone(c.rules)}
		tx.chains[name], tx.fresh[name] = c, true
	}
	return c, nil
}

// chain executes what is done to a whole chain.
func (tx *fakeTx) chain(o op) error {
	switch o.verb {
	case declare:
		return tx.declare(o)
	case create:
		if _, ok := tx.chains[o.name]; ok {
			return errors.New("chain already exists")
		}
		return tx.create(o.name)
	case flush:
		return tx.each(o.name, tx.flush)
	default:
		return tx.each(o.name, tx.destroy)
	}
}

// each calls f with a chain, or with all if name is empty.
func (tx *fakeTx) each(name string, f func(string) error) error {
	if name != "" {
		return f(name)
	}
	for _, name := range slices.Sorted(maps.Keys(tx.chains)) {
		if tx.chains[name].builtin && len(tx.chains[name].rules) == 0 {
			continue
		}
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

func (tx *fakeTx) declare(o op) error {
	c, ok := tx.chains[o.name]
	switch policy := o.args[0]; {
	case ok && c.builtin:
		if policy != "-" && policy != "ACCEPT" && policy != "DROP" {
			return fmt.Errorf("policy %q invalid", policy)
		}
		return nil // a policy is not our business
	case policy != "-":
		return errors.New("bad built-in chain name")
	case ok:
		return tx.flush(o.name)
	}
	return tx.create(o.name)
}

func (tx *fakeTx) create(name string) error {
	if err := validChain(name); err != nil {
		return err
	}
	tx.chains[name], tx.fresh[name] = &fakeChain{}, true
	return nil
}

func validChain(name string) error {
	switch {
	case len(name) > maxChainName:
		return fmt.Errorf("chain name '%s' too long (must be under %d chars)", name, maxChainName+1)
	case strings.HasPrefix(name, "-"), strings.HasPrefix(name, "!"):
		return fmt.Errorf("chain name not allowed to start with '%c'", name[0])
	case name == "", strings.ContainsFunc(name, func(r rune) bool { return r <= 0x20 || r >= 0x7f }):
		return fmt.Errorf("chain name %q invalid", name)
	case isTarget(name):
		return errors.New("chain name may not clash with target name")
	}
	return nil
}

func (tx *fakeTx) flush(name string) error {
	c, err := tx.get(name)
	if err != nil {
		return err
	}
	for _, rule := range c.rules {
		tx.unref(rule)
	}
	c.rules = nil
	return nil
}

func (tx *fakeTx) destroy(name string) error {
	c, ok := tx.chains[name]
	switch {
	case !ok, c.builtin:
		return errNoChain
	case len(c.rules) > 0:
		return fmt.Errorf("CHAIN_DEL failed: chain %s is not empty", name)
	case tx.refs[name] > 0:
		return fmt.Errorf("CHAIN_DEL failed: chain %s has %d references", name, tx.refs[name])
	}
	delete(tx.chains, name)
	delete(tx.fresh, name)
	return nil
}

func (tx *fakeTx) addRule(o op, rule fakeRule) error {
	if rule.jump != "" {
		if target, ok := tx.chains[rule.jump]; !ok || target.builtin {
			return fmt.Errorf("chain '%s' does not exist", rule.jump)
		}
	}
	c, err := tx.get(o.name)
	if err != nil {
		return err
	}
	at := len(c.rules)
	if o.verb == insert {
		at = max(o.index, 1) - 1
	}
	switch {
	case at > len(c.rules):
		return errors.New("index of insertion too big")
	case o.verb == insert && at > 0 && at < len(c.rules) && tx.grown[o.name]:
		return errors.New("cannot insert before a rule of the same commit") // iptables-nft 1.8.9
	}
	tx.grown[o.name] = true
	c.rules = slices.Insert(c.rules, at, rule)
	if rule.jump != "" {
		tx.refs[rule.jump]++
	}
	return nil
}

func (tx *fakeTx) removeRule(name string, rule fakeRule) error {
	c, ok := tx.chains[name]
	if !ok {
		return errNoChain
	}
	at := slices.IndexFunc(c.rules, func(r fakeRule) bool { return r.text == rule.text })
	if at < 0 {
		return errNoRule
	}
	return tx.removeAt(name, at+1)
}

func (tx *fakeTx) removeAt(name string, index int) error {
	c, err := tx.get(name)
	if err != nil {
		return err
	}
	if index > len(c.rules) {
		return errNoRule
	}
	tx.unref(c.rules[index-1])
	c.rules = slices.Delete(c.rules, index-1, index)
	return nil
}

func (tx *fakeTx) unref(rule fakeRule) {
	if rule.jump == "" {
		return
	}
	if tx.refs[rule.jump]--; tx.refs[rule.jump] == 0 {
		delete(tx.refs, rule.jump)
	}
}

// commit makes the table what was written, if the kernel would.
func (tx *fakeTx) commit(table string) error {
	for _, name := range builtin[table] {
		walk := fakeWalk{tx: tx, hook: name, height: map[string]int{}}
		if _, err := walk.chain(name); err != nil {
			return fmt.Errorf("%w: %w", errWhole, err)
		}
	}
	tx.table.chains, tx.table.refs = tx.chains, tx.refs
	return nil
}

// fakeWalk looks at every chain that packets of a hook can reach.
type fakeWalk struct {
	tx     *fakeTx
	hook   string
	height map[string]int // of user-defined chains on the longest way down, counting from 1; inWork while unknown
}

const inWork = -1

func (w *fakeWalk) chain(name string) (int, error) {
	if h, ok := w.height[name]; ok {
		if h == inWork {
			return 0, fmt.Errorf("too many links: loop through chain %s", name)
		}
		return h, nil
	}
	w.height[name] = inWork
	below := 0
	for _, rule := range w.tx.chains[name].rules {
		if len(rule.hooks) > 0 && !slices.Contains(rule.hooks, w.hook) {
			return 0, fmt.Errorf("invalid argument: %q in chain %s is reached from %s", rule.text, name, w.hook)
		}
		if rule.jump == "" {
			continue
		}
		h, err := w.chain(rule.jump)
		if err != nil {
			return 0, err
		}
		below = max(below, h)
	}
	if below > maxNesting {
		return 0, fmt.Errorf("too many links: %d chains below %s", below, name)
	}
	w.height[name] = below + 1
	return below + 1, nil
}
