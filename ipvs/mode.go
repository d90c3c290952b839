package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Name is what selects the mode.
const Name = "ipvs"

// The defaults of Config.
const (
	DefaultScheduler  = "rr"
	DefaultRouteMark  = 0x2000
	DefaultDrainLimit = 15 * time.Minute
)

// Config says how the mode works. Zero values stand for the defaults.
type Config struct {
	// Scheduler is how IPVS chooses a backend: rr, wrr, lc, wlc, sed, nq, sh, dh, mh and so on.
	Scheduler string

	// RouteMark is the bit of a packet's mark that leads it to IPVS.
	RouteMark uint32

	// DrainLimit is how long a backend that is gone keeps its connections, at most.
	DrainLimit time.Duration

	// Exclude are ranges in which virtual servers of others are left alone, even those that a Service claims.
	Exclude []netip.Prefix

	// DropInvalid drops forwarded packets that connection tracking cannot place.
	DropInvalid bool
}

func (c Config) withDefaults() Config {
	if c.Scheduler == "" {
		c.Scheduler = DefaultScheduler
	}
	if c.RouteMark == 0 {
		c.RouteMark = DefaultRouteMark
	}
	if c.DrainLimit == 0 {
		c.DrainLimit = DefaultDrainLimit
	}
	return c
}

// NewMode makes the mode. It touches nothing yet.
func NewMode(cfg Config) proxy.Mode { return mode{cfg.withDefaults()} }

type mode struct{ cfg Config }

// Name implements proxy.Mode.
func (mode) Name() string { return Name }

// New implements proxy.Mode.
func (m mode) New(family proxy.Family) (proxy.Dataplane, error) {
	table := nft.NewRunner(family, schema)
	servers := kernel.NewIPVS(family)
	d := newDataplane(m.cfg, family, table, servers, kernel.NewRouter(family))
	d.watch = (&watcher{d: d, table: table, servers: servers, router: kernel.NewRouter(family)}).run
	return d, nil
}

// Cleanup implements proxy.Mode. Virtual servers go that the table says are ours, and the table last: should anything fail,
// the next try still knows them.
func (m mode) Cleanup(ctx context.Context) error {
	var errs []error
	for _, f := range proxy.Families {
		if err := cleanup(ctx, f); err != nil {
			errs = append(errs, fmt.Errorf("remove what is there for %v: %w", f, err))
		}
	}
	return errors.Join(errs...)
}

func cleanup(ctx context.Context, f proxy.Family) error {
	table, router := nft.NewRunner(f, schema), kernel.NewRouter(f)
	found, err := table.Read(ctx)
	if err != nil || found == nil {
		return errors.Join(err, router.Remove())
	}
	servers := kernel.NewIPVS(f)
	all, err := servers.List(ctx)
	if errors.Is(err, kernel.ErrNoIPVS) {
		all, err = nil, nil
	}
	if err != nil {
		return err
	}
	ledger := ledgerOf(found)
	var commands []kernel.Command
	for _, s := range all {
		if ledger.owns(s.ID) {
			commands = append(commands, kernel.Command{Op: kernel.DeleteServer, Server: s})
		}
	}
	refused, err := servers.Run(ctx, commands)
	errs := []error{err, router.Remove()}
	for _, r := range refused {
		errs = append(errs, r)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(commands) == len(all) { // nobody else uses IPVS in this family
		errs = append(errs, kernel.ResetParams(sysctl.Tree{}))
	}
	return errors.Join(append(errs, nft.NewProbe(f, schema).Remove(ctx), table.Remove(ctx))...)
}
