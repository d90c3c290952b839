package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// Traces implements proxy.Mode.
func (m mode) Traces(ctx context.Context) ([]string, error) {
	var all []string
	var errs []error
	for _, family := range proxy.Families {
		for _, backend := range xtables.Backends {
			ipt, err := m.open(family, backend)
			if err != nil {
				continue // see cleanup
			}
			found, err := traces(ctx, ipt)
			if err != nil && !xtables.NoKernel(err) {
				errs = append(errs, fmt.Errorf("look for our rules: %v, backend %s: %w", family, backend, err))
			}
			all = append(all, found...)
		}
	}
	found, err := objects.Traces()
	return append(all, found...), errors.Join(append(errs, err)...)
}

// isOurs tells whether a chain is certainly ours. The chain for marking is another matter.
func isOurs(chain string) bool { return strings.HasPrefix(chain, xtables.DefaultPrefix) }

func traces(ctx context.Context, ipt *xtables.Runner) ([]string, error) {
	var all []string
	for _, table := range []string{nat, filter} {
		s, err := ipt.Survey(ctx, table)
		if err != nil {
			return nil, err
		}
		found := s.Traces(isOurs)
		if table == nat && markIsOurs(s.Chains) && !markIsWanted(s) {
			found = append(found, "chain "+markChain)
		}
		for _, what := range found {
			all = append(all, fmt.Sprintf("%v, table %s: %s", ipt, table, what))
		}
	}
	return all, nil
}

// kubeletsCanary is in table nat on every node with a kubelet. Since 1.28 that has no use for the chain for marking.
const kubeletsCanary = "KUBE-KUBELET-CANARY"

// markIsOurs tells whether nobody else can have made the chain for marking, by the chains of table nat.
func markIsOurs(present map[string]int) bool {
	_, there := present[markChain]
	for name := range present {
		if strings.HasPrefix(name, "KUBE-") && name != markChain && name != kubeletsCanary {
			return false
		}
	}
	return there
}

// markIsWanted tells whether rules of others lead to the chain for marking.
func markIsWanted(nat xtables.Survey) bool {
	return slices.ContainsFunc(nat.Leads, func(l xtables.Lead) bool { return l.Target == markChain && !isOurs(l.Chain) })
}
