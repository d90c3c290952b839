package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// maxProbes is how often it is tried to find out what the node supports while something is in the way.
const maxProbes = 5

// Supported implements proxy.Mode. It tries the whole table under another name, asleep, and a virtual server that no packet
// finds.
func (m mode) Supported(ctx context.Context, family proxy.Family) error {
	if err := nft.Available(); err != nil {
		return err
	}
	if err := probeScheduler(ctx, m.cfg, kernel.NewIPVS(family)); err != nil {
		return err
	}
	for tries := 1; ; tries++ {
		err := probeTable(ctx, m.cfg, family)
		if refused, ok := errors.AsType[*nft.RefusedError](err); !ok || !refused.Resource || tries == maxProbes {
			return err
		}
	}
}

// probeScheduler needs an address that no user can have, so it takes a mark instead.
func probeScheduler(ctx context.Context, cfg Config, servers kernel.Servers) error {
	probe := kernel.Server{ID: kernel.ID{Mark: sentinelID(cfg).Mark ^ 0x00800000}, Scheduler: cfg.Scheduler}
	if cfg.RouteMark == 0x00800000 {
		probe.ID.Mark = sentinelID(cfg).Mark ^ 0x00400000
	}
	refused, err := servers.Run(ctx, []kernel.Command{{Op: kernel.AddServer, Server: probe}, {Op: kernel.DeleteServer, Server: probe}})
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		return refused[0]
	}
	return nil
}

// probeTable tries the rules of a node that has everything.
func probeTable(ctx context.Context, cfg Config, family proxy.Family) error {
	addr := family.Loopback().Addr()
	cfg.DropInvalid = true
	w := newWriter(cfg, &proxy.Node{
		Family:         family,
		PodSource:      proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: netip.PrefixFrom(addr, addr.BitLen())},
		MasqueradeMark: 1,
		ServiceCIDRs:   []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())},
	})
	table := nft.NewProbe(family, schema)
	defer func() { _ = table.Remove(context.WithoutCancel(ctx)) }()
	declareAll := func() *knftables.Transaction {
		tx := table.NewTransaction()
		schema.Declare(tx, family, knftables.DormantFlag)
		return tx
	}
	tx := declareAll()
	nft.Rewrite(tx, nil, w.fixed(true))
	err := table.Run(ctx, tx)
	if _, refused := errors.AsType[*nft.RefusedError](err); !refused {
		return err
	}
	// Which rule is it?
	for _, c := range w.fixed(true) {
		for _, rule := range c.Rules {
			tx := declareAll()
			empty := w.fixed(true)
			for i := range empty {
				empty[i].Rules = nil
			}
			nft.Rewrite(tx, nil, append(empty, nft.Chain{Name: c.Name, Rules: []string{rule}}))
			if one := table.Check(ctx, tx); one != nil {
				return fmt.Errorf("rule %q: %w", rule, one)
			}
		}
	}
	return err
}
