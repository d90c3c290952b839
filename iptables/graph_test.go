package iptables

import (
	"context"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/iptables/xtables"
)

// mayBeEmpty are chains that built-in chains jump to: they are there whether or not they have anything to do.
var mayBeEmpty = map[string]bool{servicesChain: true, healthChain: true}

// checkGraph checks that every chain of ours has rules and is jumped to, that every jump leads to a chain, and
// that chains nest no deeper than promised.
func checkGraph(t testing.TB, k *kernel) {
	t.Helper()
	for _, table := range []string{nat, filter} {
		depth, used := 0, map[string]bool{}
		for _, hook := range []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"} {
			depth = max(depth, k.descend(t, table, hook, used))
		}
		if depth-1 > maxNesting {
			t.Errorf("chains of table %s nest %d deep", table, depth-1)
		}
		chains, err := k.Fake.Chains(context.Background(), table, xtables.DefaultPrefix)
		if err != nil {
			t.Fatal(err)
		}
		for name, rules := range chains {
			if !used[name] {
				t.Errorf("nothing leads to chain %s of table %s", name, table)
			}
			if rules == 0 && !mayBeEmpty[name] {
				t.Errorf("chain %s of table %s is empty", name, table)
			}
		}
	}
}

// descend is the number of chains on the longest way that starts with this one.
func (k *kernel) descend(t testing.TB, table, chain string, used map[string]bool) int {
	used[chain] = true
	deepest := 0
	for _, r := range k.Rules(table, chain) {
		target := r[strings.LastIndex(r, "-j ")+len("-j "):]
		if !strings.HasPrefix(target, xtables.DefaultPrefix) {
			continue
		}
		if k.Rules(table, target) == nil {
			t.Errorf("chain %s of table %s jumps to %s, which does not exist", chain, table, target)
		}
		deepest = max(deepest, k.descend(t, table, target, used))
	}
	return deepest + 1
}
