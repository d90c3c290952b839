package nftables

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// maxProbes is how often it is tried to find out what the node supports while something is in the way.
const maxProbes = 5

// Supported implements proxy.Mode. It tries every kind of chain, set and rule in a table of its own, which is there for a
// moment and asleep.
func (m mode) Supported(ctx context.Context, family proxy.Family) error {
	if err := nft.Available(); err != nil {
		return err
	}
	p := &probe{table: nft.NewProbe(family, schema), writer: probeWriter(family)}
	for tries := 1; ; tries++ {
		err := p.all(ctx)
		refused, ok := errors.AsType[*nft.RefusedError](err)
		// Somebody else may probe at the same time, with the same table.
		disturbed := err != nil && !ok && !errors.Is(err, nft.ErrNotFound) && ctx.Err() == nil
		if !disturbed && (!ok || !refused.Resource) || tries == maxProbes {
			return err
		}
	}
}

// probeWriter has rules of all kinds.
func probeWriter(f proxy.Family) writer {
	addr := f.Loopback().Addr()
	return newWriter(Config{DropInvalid: true}, &proxy.Node{
		Family:         f,
		NodePorts:      proxy.NodePortAddrs{All: true, Localhost: true},
		PodSource:      proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: netip.PrefixFrom(addr, addr.BitLen())},
		MasqueradeMark: 1,
		ServiceCIDRs:   []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())},
	})
}

type probe struct {
	table *nft.Runner
	writer
}

// all is nil if the node can run the mode; the error names what it lacks.
func (p *probe) all(ctx context.Context) error {
	err := p.try(ctx, p.chains())
	if _, refused := errors.AsType[*nft.RefusedError](err); err == nil || !refused {
		return err
	}
	if err := p.try(ctx, nil); err != nil {
		return p.lacks(ctx, err)
	}
	for _, f := range p.features() {
		if err := p.try(ctx, []nft.Chain{f.chain}); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return err
}

// lacks says which set or base chain alone is refused.
func (p *probe) lacks(ctx context.Context, all error) error {
	for _, s := range schema.Sets {
		if err := p.one(ctx, s.Object(p.node.Family)); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for _, c := range schema.Chains {
		if err := p.one(ctx, c.Object()); err != nil {
			return fmt.Errorf("chain of type %s at hook %s: %w", c.Type, c.Hook, err)
		}
	}
	return all
}

func (p *probe) one(ctx context.Context, o knftables.Object) error {
	tx := p.table.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Add(o)
	return p.table.Check(ctx, tx)
}

// chains are all kinds of chains.
func (p *probe) chains() []nft.Chain {
	all := p.fixed(true)
	for _, s := range []spec{{backends: 1}, {backends: 2, pool: proxy.LocalPool, sticky: true, masq: allButPods}, specOfTimeout(time.Second)} {
		all = append(all, p.chain(s))
		if s.timeout == 0 {
			s.nodePort = true
			all = append(all, p.chain(s))
		}
	}
	return all
}

// try writes the table with chains, and removes it. It is dormant, so no packet ever comes there.
func (p *probe) try(ctx context.Context, chains []nft.Chain) error {
	tx := p.table.NewTransaction()
	nft.Vanish(tx) // a process that was killed may have left its own
	schema.Declare(tx, p.node.Family, knftables.DormantFlag)
	nft.Rewrite(tx, nil, chains)
	defer func() { _ = p.table.Remove(context.WithoutCancel(ctx)) }()
	return p.table.Run(ctx, tx)
}

// feature is an expression without which the mode cannot work.
type feature struct {
	name  string
	chain nft.Chain
}

// features lists them. Each stands in a base chain that may hold it.
func (p *probe) features() []feature {
	in := func(base, name string, rules ...string) feature {
		return feature{name, nft.Chain{Name: base, Rules: rules}}
	}
	backends := p.chain(spec{backends: 2, pool: proxy.LocalPool}).Rules
	sticky := p.recall(spec{backends: 1, sticky: true})
	return []feature{
		in(filterForward, "expression ct state", "ct state new return"),
		in(filterForward, "expression ct status", "ct status dnat return"),
		in(filterForward, "expression fib (address type)", "fib daddr type local return"),
		in(filterForward, "statement reject", "reject"),
		in(filterForward, "match on a set with prefixes", p.frontend+" . "+p.ip+" saddr @"+allowed.Name+" return"),
		in(natPrerouting, "look-up of verdicts", p.frontend+" vmap @"+services.Name),
		in(natPrerouting, "expression numgen", backends[0]),
		in(natPrerouting, "statement dnat to addresses and ports of a map", backends[1]),
		in(natPrerouting, "statement meta mark set", p.setMark()),
		in(natPrerouting, "look-up of a client's backend", sticky[:len(sticky)-1]...),
		in(natPostrouting, "statement masquerade fully-random", p.masquerade()...),
		in(learnPrerouting, "expression ct original", p.learn()...),
		in(learnPrerouting, "statement update of a map", p.remember(1)),
		in(sourcesPrerouting, "statement delete of a map", p.forget()),
	}
}
