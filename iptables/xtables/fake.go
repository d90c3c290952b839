package xtables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// Fake is an iptables that holds its tables in memory, for tests. It executes restore input as the kernel does,
// table by table, and refuses what either backend of the real one refuses, so what it accepts
// loads everywhere. Of the rules it knows the matches and targets that the mode uses, and no others.
//
// It is not safe for concurrent use. Its exported fields may be changed between calls.
type Fake struct {
	// FailEvery, if positive, makes each call of that number fail: 3 is the third, the sixth and so on.
	FailEvery int

	// FailRate is the chance of a call to fail, from 0 to 1. What fails is drawn from the seed of NewFake.
	FailRate float64

	// Refuse, if set, is asked about each rule that is added. It says why the kernel does not like
	// it, or "".
	Refuse func(table, chain, rule string) string

	// Blind keeps the line of a refused rule secret, as the legacy backend often does.
	Blind bool

	// Restores counts the calls of Restore, and those that EnsureJumps and RemoveJumps needed.
	Restores int

	// Last is the input of the newest of them, and Bytes the length of all.
	Last  []byte
	Bytes int

	family proxy.Family
	random *rand.Rand
	calls  int
	tables map[string]*fakeTable
}

var _ Interface = (*Fake)(nil)

// NewFake makes tables nat, filter and mangle with nothing but their built-in chains.
func NewFake(family proxy.Family, seed uint64) *Fake {
	f := &Fake{family: family, random: rand.New(rand.NewPCG(seed, seed)), tables: map[string]*fakeTable{}}
	for _, table := range []string{"nat", "filter", "mangle"} {
		f.tables[table] = newFakeTable(builtin[table])
	}
	return f
}

// Restore implements Interface. A failure by FailEvery or FailRate is one of lock or memory, and strikes before,
// between or after the tables: some of the input, or all, may have been executed.
func (f *Fake) Restore(_ context.Context, input []byte) error {
	if !f.fails() {
		return f.restore(input)
	}
	sections := bytesOfTables(input)
	done := f.random.IntN(len(sections) + 1)
	if err := f.restore(slices.Concat(sections[:done]...)); err != nil {
		return err
	}
	return errInjected()
}

// Chains implements Interface.
func (f *Fake) Chains(_ context.Context, table, prefix string) (map[string]int, error) {
	if f.fails() {
		return nil, fmt.Errorf("list table %s: %w", table, errInjected())
	}
	found := map[string]int{}
	if t, ok := f.tables[table]; ok {
		for name, chain := range t.chains {
			if !chain.builtin && strings.HasPrefix(name, prefix) {
				found[name] = len(chain.rules)
			}
		}
	}
	return found, nil
}

// EnsureJumps implements Interface.
func (f *Fake) EnsureJumps(ctx context.Context, jumps []Jump) error {
	plan, err := planJumps(jumps, f.list)
	return f.follow(ctx, "insert jumps", plan, err)
}

// RemoveJumps implements Interface.
func (f *Fake) RemoveJumps(ctx context.Context, prefix string) error {
	plan, err := planRemoval(prefix, f.list)
	return f.follow(ctx, "remove jumps", plan, err)
}

func (f *Fake) follow(ctx context.Context, what string, plan edit, err error) error {
	if input := plan.input.bytes(); err == nil && len(input) > 0 {
		err = f.Restore(ctx, input)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (f *Fake) list(table, chain string) (listing, error) {
	if f.fails() {
		return listing{}, errInjected()
	}
	rules := f.Rules(table, chain)
	for i, rule := range rules {
		rules[i] = "-A " + chain + " " + rule
	}
	return listing{rules: rules}, nil
}

// Rules are the rules of a chain, in the words in which they were given. It is nil if there is no such chain.
func (f *Fake) Rules(table, chain string) []string {
	t, ok := f.tables[table]
	if !ok || t.chains[chain] == nil {
		return nil
	}
	rules := []string{}
	for _, rule := range t.chains[chain].rules {
		rules = append(rules, rule.text)
	}
	return rules
}

// Dump shows the tables in the form of iptables-save: sorted chains, and no tables and built-in chains
// without content.
func (f *Fake) Dump() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.tables)) {
		f.tables[name].dump(&b, name)
	}
	return b.String()
}

func (f *Fake) fails() bool {
	f.calls++
	return f.FailEvery > 0 && f.calls%f.FailEvery == 0 || f.FailRate > 0 && f.random.Float64() < f.FailRate
}

var errExit = errors.New("exit status 4")

func errInjected() error {
	return &RestoreError{Resource: true, Output: "Another app is currently holding the xtables lock.", Err: errExit}
}

// bytesOfTables cuts input behind each COMMIT.
func bytesOfTables(input []byte) (sections [][]byte) {
	const end = "\nCOMMIT\n"
	for len(input) > 0 {
		at := strings.Index(string(input), end)
		if at < 0 {
			return append(sections, input)
		}
		sections = append(sections, input[:at+len(end)])
		input = input[at+len(end):]
	}
	return sections
}

func (f *Fake) restore(input []byte) error {
	f.Restores++
	f.Bytes += len(input)
	f.Last = slices.Clone(input)
	run := fakeRun{fake: f}
	last := 0
	err := eachLine(input, func(number int, line string) error {
		last = number
		if err := run.line(line); err != nil {
			return f.refuse(number, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case run.tx != nil:
		return f.refuse(last+1, errors.New("COMMIT expected"))
	case len(input) > 0 && input[len(input)-1] != '\n':
		return f.refuse(last, errors.New("the last line does not end"))
	}
	return nil
}

// errWhole is wrapped by what a table as a whole is refused for.
var errWhole = errors.New("table refused")

func (f *Fake) refuse(line int, err error) error {
	if f.Blind || errors.Is(err, errWhole) {
		line = 0
	}
	return &RestoreError{Line: line, Output: err.Error(), Err: errors.New("exit status 1")}
}

// fakeRun executes input line by line.
type fakeRun struct {
	fake *Fake
	name string  // of the open table
	tx   *fakeTx // nil outside a table
}

func (r *fakeRun) line(line string) error {
	o, err := parseOp(line)
	if err != nil {
		return err
	}
	if (o.verb == table) != (r.tx == nil) {
		return fmt.Errorf("unexpected %q", line)
	}
	switch o.verb {
	case table:
		t, ok := r.fake.tables[o.name]
		if !ok {
			return fmt.Errorf("unable to initialize table '%s'", o.name)
		}
		r.name, r.tx = o.name, t.begin()
		return nil
	case commit:
		err := r.tx.commit(r.name)
		r.tx = nil
		return err
	case appendR, insert, remove:
		return r.rule(o)
	}
	return r.tx.chain(o)
}

func (r *fakeRun) rule(o op) error {
	if o.verb == remove && o.index > 0 {
		return r.tx.removeAt(o.name, o.index)
	}
	rule, err := parseRule(o.args, ruleContext{family: r.fake.family, table: r.name, chain: o.name})
	if err != nil {
		return err
	}
	if o.verb == remove {
		return r.tx.removeRule(o.name, rule)
	}
	if refuse := r.fake.Refuse; refuse != nil {
		if reason := refuse(r.name, o.name, rule.text); reason != "" {
			return errors.New(reason)
		}
	}
	return r.tx.addRule(o, rule)
}
