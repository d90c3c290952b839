package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"k8s.io/klog/v2"
	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Yield implements proxy.Yielder. The virtual servers stay, and packets are led to them, but connections are no longer kept
// from the translation of others.
func (mode) Yield(ctx context.Context) error {
	var errs []error
	for _, f := range proxy.Families {
		if err := empty(ctx, nft.NewRunner(f, schema), []string{natPrerouting, natOutput, reject, drop, unknown}, nil); err != nil {
			errs = append(errs, fmt.Errorf("let another mode serve %v: %w", f, err))
		}
	}
	return errors.Join(errs...)
}

// empty takes all rules from chains and all elements from maps, in one transaction. A table of another layout is left alone.
func empty(ctx context.Context, table *nft.Runner, chains []string, maps []set) error {
	state, err := table.Find(ctx)
	if err != nil || state == nil || !state.Fits {
		return err
	}
	tx := table.NewTransaction()
	for _, name := range chains {
		if len(state.Chains[name]) > 0 {
			tx.Flush(&knftables.Chain{Name: name})
		}
	}
	for _, m := range maps {
		if len(state.Elements[m.name()]) > 0 {
			tx.Flush(&knftables.Map{Name: m.name()})
		}
	}
	if tx.NumOperations() == 0 {
		return nil
	}
	return table.Run(ctx, tx)
}

// Retire implements proxy.Retirer.
func (m mode) Retire(ctx context.Context, since time.Time) (bool, error) {
	var errs []error
	left := false
	for _, f := range proxy.Families {
		busy, err := retire(ctx, f, time.Since(since) >= m.cfg.DrainLimit)
		if err != nil {
			errs = append(errs, fmt.Errorf("retire what is there for %v: %w", f, err))
		}
		left = left || busy
	}
	if !left && len(errs) == 0 {
		errs = append(errs, kernel.RemoveCompatInterface())
	}
	return left, errors.Join(errs...)
}

func retire(ctx context.Context, f proxy.Family, over bool) (left bool, err error) {
	r := retirement{family: f, table: nft.NewRunner(f, schema), servers: kernel.NewIPVS(f), flows: &conntrack.Kernel{}}
	r.cleanup = func() error { return cleanup(ctx, f, sysctl.Tree{}) }
	taken, err := kernel.KubeProxyHasAddresses(f)
	switch {
	case err != nil:
		return true, err
	case taken: // the virtual servers as well: nothing of ours has connections
		return false, r.cleanup()
	}
	return r.step(ctx, over)
}

// retirement is how one family of the mode ends while another mode serves.
type retirement struct {
	family  proxy.Family
	table   *nft.Runner
	servers kernel.Servers
	flows   conntrack.Table
	cleanup func() error // removes everything
}

// step does what can be done now, and tells whether there are connections for whose sake something is left.
func (r retirement) step(ctx context.Context, over bool) (left bool, err error) {
	state, err := r.table.Find(ctx)
	if err != nil {
		return true, err
	}
	if state == nil || !state.Fits {
		return false, r.cleanup()
	}
	if leads(state) {
		// What is on its way to IPVS just now must be counted as a connection before anything goes, so that comes next time.
		klog.FromContext(ctx).Info("Leaving new connections to another mode, those through IPVS go on", "family", r.family)
		return true, r.stopLeading(ctx)
	}
	loads, err := r.loads(ctx, ledgerOf(state))
	if err != nil {
		return true, err
	}
	busy := 0
	for _, list := range loads {
		if connections(list) > 0 {
			busy++
		}
	}
	if busy > 0 && !over {
		return true, r.dwindle(ctx, ledgerOf(state), loads)
	}
	if busy > 0 {
		klog.FromContext(ctx).Info("Ending connections through IPVS, another mode has served for long", "family", r.family, "virtualServers", busy)
		if err := r.handOver(ctx, loads); err != nil {
			return true, err
		}
	}
	return false, r.cleanup()
}

// leads tells whether a table leads new connections to IPVS.
func leads(state *nft.State) bool {
	n := len(state.Chains[arrive])
	for _, m := range verdicts {
		n += len(state.Elements[m.name()])
	}
	return n > 0
}

// verdicts say what becomes of new connections.
var verdicts = []set{fromPods, fromNode, fromOutside}

// stopLeading leaves new connections alone. Those that are known go on to be led to their virtual servers.
func (r retirement) stopLeading(ctx context.Context) error {
	return empty(ctx, r.table, []string{arrive, sources, unknown, reject, drop, natPrerouting, natOutput}, verdicts)
}

// loads are the backends of the virtual servers that are ours.
func (r retirement) loads(ctx context.Context, l ledger) (map[kernel.ID][]kernel.Load, error) {
	all, err := r.servers.List(ctx)
	if errors.Is(err, kernel.ErrNoIPVS) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ours []kernel.ID
	for _, s := range all {
		if l.owns(s.ID) {
			ours = append(ours, s.ID)
		}
	}
	return r.servers.Dests(ctx, ours)
}

// connections is the number of connections that are known, those that are about to end included.
func connections(loads []kernel.Load) (n uint32) {
	for _, l := range loads {
		n += l.Connections()
	}
	return n
}

// dwindle removes the virtual servers without connections, and lets the others have no new ones: IPVS takes whatever
// arrives at their addresses and is not translated.
func (r retirement) dwindle(ctx context.Context, l ledger, loads map[kernel.ID][]kernel.Load) error {
	var commands []kernel.Command
	var unlist, disown nft.Edits
	for id, list := range loads {
		server := kernel.Server{ID: id}
		if connections(list) == 0 {
			commands = append(commands, kernel.Command{Op: kernel.DeleteServer, Server: server})
			if p := frontends.at(frontendKey(id)); id.Mark == 0 && l.has(p) {
				unlist.Add(removed(p))
			}
			disown.Add(removed(ownPlace(id)))
			continue
		}
		for _, x := range list {
			if x.Weight > 0 {
				commands = append(commands, kernel.Command{Op: kernel.SetDest, Server: server, Dest: kernel.Dest{Addr: x.Addr}})
			}
		}
	}
	if err := r.send(ctx, unlist); err != nil {
		return err
	}
	refused, err := r.servers.Run(ctx, commands)
	if err != nil {
		return err
	}
	for _, e := range refused {
		if !e.Missing() {
			return e
		}
	}
	return r.send(ctx, disown)
}

func (r retirement) send(ctx context.Context, e nft.Edits) error {
	for some := range slices.Chunk(e.Settled(), maxElements) {
		tx := r.table.NewTransaction()
		nft.Write(tx, some)
		if err := r.table.Run(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

// handOver ends the UDP flows through virtual servers that are ours. Their next packets begin flows that the other mode
// translates.
func (r retirement) handOver(ctx context.Context, loads map[kernel.ID][]kernel.Load) error {
	ours := map[netip.AddrPort]bool{}
	for id, list := range loads {
		for _, x := range list {
			if id.Mark != 0 || id.Protocol == proxy.UDP {
				ours[x.Addr] = true
			}
		}
	}
	_, err := conntrack.HandOver(ctx, r.flows, r.family, ours)
	return err
}
