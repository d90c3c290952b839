package ipvs

import (
	"context"
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

	// Timeouts are idle times after which IPVS forgets connections.
	Timeouts kernel.Timeouts

	// CompatInterface says whether there shall be an interface kube-ipvs0.
	CompatInterface Compat

	// DropInvalid drops forwarded packets that connection tracking cannot place.
	DropInvalid bool

	// Sysctls are the kernel's parameters.
	Sysctls sysctl.Tree
}

// Compat is when to make an interface kube-ipvs0, up and without an address. Calico turns its own support of IPVS on by it.
type Compat string

// The values of Compat. Empty is CompatAuto.
const (
	CompatAuto Compat = "auto" // where Calico is
	CompatOn   Compat = "on"
	CompatOff  Compat = "off"
)

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
func NewMode(cfg Config) proxy.Mode { return mode{cfg.withDefaults(), &stuck{}} }

type mode struct {
	cfg   Config
	stuck *stuck
}

// Name implements proxy.Mode.
func (mode) Name() string { return Name }

// New implements proxy.Mode.
func (m mode) New(family proxy.Family) (proxy.Dataplane, error) {
	table := nft.NewRunner(family, schema)
	servers := kernel.NewIPVS(family)
	d := newDataplane(m.cfg, family, table, servers, kernel.NewRouter(family))
	d.forms = table.Forms()
	d.settings = func(ctx context.Context) error { return m.set(ctx, family, servers) }
	d.unmet = m.unmet
	d.see = func(ctx context.Context) (looker, func(), error) {
		look, err := servers.Look(ctx)
		if err != nil {
			return nil, nil, err
		}
		return look, look.Close, nil
	}
	d.watch = (&watcher{d: d, table: table, servers: servers, router: kernel.NewRouter(family), settings: m.watchSettings(family)}).run
	return d, nil
}
