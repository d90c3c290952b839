package ipvs

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"k8s.io/klog/v2"

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

	// SysctlRoot is the folder in which proc/sys has the kernel's parameters; empty is /.
	SysctlRoot string
}

func (c Config) sysctls() sysctl.Tree { return sysctl.Tree{Root: c.SysctlRoot} }

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
func NewMode(cfg Config) proxy.Mode { return mode{cfg.withDefaults()} }

type mode struct{ cfg Config }

// Name implements proxy.Mode.
func (mode) Name() string { return Name }

// New implements proxy.Mode.
func (m mode) New(family proxy.Family) (proxy.Dataplane, error) {
	table := nft.NewRunner(family, schema)
	servers := kernel.NewIPVS(family)
	d := newDataplane(m.cfg, family, table, servers, kernel.NewRouter(family))
	d.settings = func(ctx context.Context) ([]kernel.Change, error) { return m.settings(ctx, family, servers) }
	d.watch = (&watcher{d: d, table: table, servers: servers, router: kernel.NewRouter(family)}).run
	return d, nil
}

// Prepare implements proxy.Preparer.
func (m mode) Prepare(ctx context.Context) error {
	changes, err := m.settings(ctx, proxy.IPv4, kernel.NewIPVS(proxy.IPv4))
	logChanges(ctx, changes)
	return err
}

func logChanges(ctx context.Context, changes []kernel.Change) {
	for _, c := range changes {
		klog.FromContext(ctx).Info("Set kernel parameter", "file", c.File, "was", c.Was, "value", c.Value)
	}
}

// settings sets what is not of one family, and says what it changed in files.
func (m mode) settings(ctx context.Context, f proxy.Family, servers *kernel.IPVS) ([]kernel.Change, error) {
	changes, err := kernel.SetParams(m.cfg.sysctls())
	if err != nil {
		return changes, fmt.Errorf("set parameters of IPVS: %w", err)
	}
	if changed, err := servers.SetTimeouts(ctx, m.cfg.Timeouts); err != nil {
		return changes, err
	} else if changed {
		klog.FromContext(ctx).Info("Set the timeouts of IPVS", "tcp", m.cfg.Timeouts.TCP, "tcpFin", m.cfg.Timeouts.TCPFin, "udp", m.cfg.Timeouts.UDP)
	}
	if f == proxy.IPv4 {
		return changes, m.compat(ctx)
	}
	return changes, nil
}

// compat makes the interface kube-ipvs0 if it is wanted.
func (m mode) compat(ctx context.Context) error {
	wanted := m.cfg.CompatInterface == CompatOn
	if m.cfg.CompatInterface == CompatAuto || m.cfg.CompatInterface == "" {
		var err error
		if wanted, err = kernel.HasCalico(); err != nil {
			return err
		}
	}
	if !wanted {
		return nil
	}
	made, err := kernel.AddCompatInterface()
	if made && err == nil {
		klog.FromContext(ctx).Info("Made an interface kube-ipvs0 without addresses, by which Calico knows that there is IPVS")
	}
	return err
}
