package iptables

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

const (
	// trialPrefix starts the names of chains that no packet reaches. No other chain of ours has it.
	trialPrefix = xtables.DefaultPrefix + "T"

	// maxTrials limits how long others wait for a search. What it has not cleared by then is set aside
	// together.
	maxTrials = 120

	// sampled is how many of a kind are tried one by one before the whole kind is taken to be refused.
	sampled = 8
)

// trial finds ServicePorts that iptables refuses by loading their chains under other names, so that
// neither what is served nor what the dataplane knows of it is touched.
type trial struct {
	cfg  Config
	ipt  xtables.Interface
	how  how
	node *proxy.Node
	none *tables
	left int
}

// search gives nothing if even an empty snapshot is refused, or none of the suspects is.
func (t *trial) search(ctx context.Context, suspects []*proxy.ServicePort) ([]shelf.Offence, error) {
	if err := t.load(ctx, nil); err != nil {
		if _, ok := errors.AsType[*refusal](err); ok {
			return nil, nil
		}
		return nil, err
	}
	// What a kernel lacks, all of a kind need: they stand together.
	kinds := kindsOf(suspects, t.node)
	byKind := slices.Clone(suspects)
	slices.SortStableFunc(byKind, func(a, b *proxy.ServicePort) int { return cmp.Compare(kinds[a], kinds[b]) })
	return t.among(ctx, byKind, kinds)
}

// among finds the offenders in a list that is sorted by kind: in its halves, unless there are so many that whole kinds
// are refused.
func (t *trial) among(ctx context.Context, suspects []*proxy.ServicePort, kinds map[*proxy.ServicePort]string) ([]shelf.Offence, error) {
	err := t.load(ctx, suspects)
	refused, ok := errors.AsType[*refusal](err)
	if !ok {
		return nil, err
	}
	all := len(suspects) == 1 || t.left <= 0
	if oneKind := kinds[suspects[0]] == kinds[suspects[len(suspects)-1]]; !all && oneKind && 2*len(suspects) > t.left {
		if all, err = t.each(ctx, someOf(suspects)); err != nil {
			return nil, err
		}
	}
	if all {
		var found []shelf.Offence
		for _, sp := range suspects {
			found = append(found, shelf.Offence{Port: sp, Err: refused.RestoreError})
		}
		return found, nil
	}
	at := middle(suspects, kinds)
	found, err := t.among(ctx, suspects[:at], kinds)
	if err != nil {
		return nil, err
	}
	more, err := t.among(ctx, suspects[at:], kinds)
	return append(found, more...), err
}

// each tells whether every one of these is refused, and stops at the first that is not.
func (t *trial) each(ctx context.Context, suspects []*proxy.ServicePort) (bool, error) {
	for _, sp := range suspects {
		err := t.load(ctx, []*proxy.ServicePort{sp})
		if _, ok := errors.AsType[*refusal](err); !ok {
			return false, err
		}
	}
	return true, nil
}

// someOf takes some from all over a list.
func someOf(list []*proxy.ServicePort) []*proxy.ServicePort {
	var some []*proxy.ServicePort
	for i := range min(sampled, len(list)) {
		some = append(some, list[i*len(list)/sampled])
	}
	return some
}

// middle is where to cut a list: where a kind begins, if there are several.
func middle(list []*proxy.ServicePort, kinds map[*proxy.ServicePort]string) int {
	half := len(list) / 2
	for off := range half + 1 {
		for _, at := range []int{half - off, half + off} {
			if at > 0 && at < len(list) && kinds[list[at-1]] != kinds[list[at]] {
				return at
			}
		}
	}
	return half
}

// load tries a snapshot of these ServicePorts.
func (t *trial) load(ctx context.Context, ports []*proxy.ServicePort) error {
	t.left--
	byName := make(map[proxy.ServicePortName]*proxy.ServicePort, len(ports))
	for _, sp := range ports {
		byName[sp.Name] = sp
	}
	next, _ := t.none.next(proxy.NewSnapshot(t.node, byName))
	input := t.cfg.plan([]*tables{t.none}, nil, next).input(t.how)
	input = bytes.ReplaceAll(input, []byte(xtables.DefaultPrefix), []byte(trialPrefix))
	if err := t.ipt.Restore(ctx, input); err != nil {
		return refusalOf(err, input)
	}
	return nil
}

// wipe removes what trials left.
func (t *trial) wipe(ctx context.Context) error {
	var p plan
	for _, table := range []string{nat, filter} {
		present, err := t.ipt.Chains(ctx, table, trialPrefix)
		if err != nil {
			return fmt.Errorf("list trial chains of table %s: %w", table, err)
		}
		s := newSection(table)
		for _, name := range slices.Sorted(maps.Keys(present)) {
			s.remove(name)
		}
		p = append(p, s)
	}
	if input := p.input(t.how); len(input) > 0 {
		if err := t.ipt.Restore(ctx, input); err != nil {
			return fmt.Errorf("remove trial chains: %w", err)
		}
	}
	return nil
}
