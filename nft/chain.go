package nft

import (
	"fmt"
	"hash/fnv"
	"slices"

	"sigs.k8s.io/knftables"
)

// Chain is a chain with its rules, in the words of nft.
type Chain struct {
	Name  string
	Rules []string
}

// Rewrite puts the chains of now that differ from those of was into a transaction, and tells how many rules it writes. A
// chain that is not in was is created; one that is not in now is left alone.
func Rewrite(tx *knftables.Transaction, was, now []Chain) int {
	had := map[string]Chain{}
	for _, c := range was {
		had[c.Name] = c
	}
	for _, c := range now {
		if _, ok := had[c.Name]; !ok {
			tx.Add(&knftables.Chain{Name: c.Name})
		}
	}
	rules := 0
	for _, c := range now {
		if old, ok := had[c.Name]; !ok || !slices.Equal(old.Rules, c.Rules) {
			c.Write(tx)
			rules += len(c.Rules)
		}
	}
	return rules
}

// Write puts the rules of a chain that is already declared into a transaction.
func (c Chain) Write(tx *knftables.Transaction) {
	tx.Flush(&knftables.Chain{Name: c.Name})
	for i, digest := range c.Digests() {
		tx.Add(&knftables.Rule{Chain: c.Name, Rule: c.Rules[i], Comment: &digest})
	}
}

// Digests are the comments of the rules, by which a State knows them again. The kernel's form of a rule says the same, but in
// words that differ between releases of nft.
func (c Chain) Digests() []string {
	all := make([]string, len(c.Rules))
	for i, rule := range c.Rules {
		h := fnv.New32a()
		h.Write([]byte(rule))
		all[i] = fmt.Sprintf("%08x", h.Sum32())
	}
	return all
}

// Is tells whether a State holds the chain as it is.
func (c Chain) Is(s *State) bool {
	digests, ok := s.Chains[c.Name]
	return ok && slices.Equal(digests, c.Digests())
}
