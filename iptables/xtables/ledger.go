package xtables

import (
	"fmt"
	"maps"
	"strings"
)

// ledger says what our chains and the jumps to them hold after our own writes, so that a look at
// the kernel can tell whether somebody else changed them. Tables that were never read, or where a write
// failed, are unknown. It is guarded by Runner.mu.
type ledger struct {
	prefix string
	tables map[string]contents // missing: unknown
	wrote  map[string]bool     // tables that were written at least once
}

func newLedger(prefix string) *ledger {
	return &ledger{prefix: prefix, tables: map[string]contents{}, wrote: map[string]bool{}}
}

// know makes what was read from the kernel the truth.
func (l *ledger) know(table string, c contents) { l.tables[table] = c }

// doubtful forgets the tables that a failed input names.
func (l *ledger) doubtful(input []byte) {
	_ = eachLine(input, func(_ int, line string) error {
		if strings.HasPrefix(line, "*") {
			delete(l.tables, line[1:])
			l.wrote[line[1:]] = true
		}
		return nil
	})
}

// record follows a restore that succeeded.
func (l *ledger) record(input []byte) {
	var current contents
	known := false
	_ = eachLine(input, func(_ int, line string) error {
		if strings.HasPrefix(line, "*") {
			current, known = l.tables[line[1:]]
			l.wrote[line[1:]] = true
		} else if known {
			l.recordLine(current, line)
		}
		return nil
	})
}

func (l *ledger) recordLine(c contents, line string) {
	// Nearly every line appends to a chain of ours, and needs no more of a look.
	if chain, ok := strings.CutPrefix(line, "-A "+l.prefix); ok {
		chain, _, _ = strings.Cut(chain, " ")
		c.chains[l.prefix+chain]++
		return
	}
	o, err := parseOp(line)
	if err != nil {
		return
	}
	if strings.HasPrefix(o.name, l.prefix) {
		c.recordOwn(o)
	} else if o.name == SharedChain {
		c.shared[o.name] = o.verb != destroy
	} else if target := targetOf(line); strings.HasPrefix(target, l.prefix) {
		c.recordJump(o, jump{o.name, target})
	}
}

// recordOwn follows a change to a chain of ours.
func (c contents) recordOwn(o op) {
	switch o.verb {
	case declare, create, flush:
		c.chains[o.name] = 0
	case appendR, insert:
		c.chains[o.name]++
	case remove:
		c.chains[o.name]--
	case destroy:
		delete(c.chains, o.name)
	}
}

// recordJump follows a change to a jump in a chain that is not ours.
func (c contents) recordJump(o op, j jump) {
	switch o.verb {
	case appendR, insert:
		c.jumps[j]++
	case remove:
		if c.jumps[j]--; c.jumps[j] <= 0 {
			delete(c.jumps, j)
		}
	}
}

// entries is how many entries of a table in the legacy backend are ours: a rule is one, a chain two more.
func (l *ledger) entries(table string) (n int, known bool) {
	c, known := l.tables[table]
	for _, rules := range c.chains {
		n += rules + 2
	}
	for _, rules := range c.jumps {
		n += rules
	}
	return n, known
}

// compare says how a table differs from what it should hold, and takes it as it is from now on: a
// difference is told once. It gives "" if it does not, or if nothing was ever written there.
func (l *ledger) compare(table string, actual contents) string {
	expected, known := l.tables[table]
	l.tables[table] = actual
	if !known && l.wrote[table] {
		return fmt.Sprintf("table %s changed after a write that failed", table)
	}
	if !known {
		return ""
	}
	return expected.difference(table, actual)
}

func (c contents) difference(table string, actual contents) string {
	for name, want := range c.chains {
		got, ok := actual.chains[name]
		if !ok {
			return fmt.Sprintf("chain %s of table %s is gone", name, table)
		}
		if got != want {
			return fmt.Sprintf("chain %s of table %s has %d rules instead of %d", name, table, got, want)
		}
	}
	for name := range actual.chains {
		if _, ok := c.chains[name]; !ok {
			return fmt.Sprintf("chain %s of table %s appeared", name, table)
		}
	}
	for name, had := range c.shared {
		if had && !actual.shared[name] {
			return fmt.Sprintf("chain %s of table %s is gone", name, table)
		}
	}
	for chain := range actual.overtaken {
		return fmt.Sprintf("a jump of kube-proxy's stands before ours in chain %s of table %s", chain, table)
	}
	for j, want := range c.jumps {
		if got := actual.jumps[j]; got < want {
			return fmt.Sprintf("jump from %s of table %s to %s is gone", j.chain, table, j.target)
		}
	}
	return ""
}

func (c contents) clone() contents {
	return contents{chains: maps.Clone(c.chains), jumps: maps.Clone(c.jumps), shared: maps.Clone(c.shared)}
}
