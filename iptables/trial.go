package iptables

import (
	"bytes"
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
	maxTrials = 200
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
	return t.among(ctx, suspects)
}

func (t *trial) among(ctx context.Context, suspects []*proxy.ServicePort) ([]shelf.Offence, error) {
	err := t.load(ctx, suspects)
	refused, ok := errors.AsType[*refusal](err)
	if !ok {
		return nil, err
	}
	if len(suspects) == 1 || t.left <= 0 {
		var found []shelf.Offence
		for _, sp := range suspects {
			found = append(found, shelf.Offence{Port: sp, Err: refused.RestoreError})
		}
		return found, nil
	}
	half := len(suspects) / 2
	found, err := t.among(ctx, suspects[:half])
	if err != nil {
		return nil, err
	}
	more, err := t.among(ctx, suspects[half:])
	return append(found, more...), err
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
