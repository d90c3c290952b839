package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/ask"
	"github.com/sluice-proxy/sluice/proxy/audit"
	"github.com/sluice-proxy/sluice/proxy/healthcheck"
	"github.com/sluice-proxy/sluice/proxy/history"
	"github.com/sluice-proxy/sluice/proxy/loop"
	"github.com/sluice-proxy/sluice/proxy/metrics"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
	"github.com/sluice-proxy/sluice/proxy/relay"
	"github.com/sluice-proxy/sluice/proxy/report"
	"github.com/sluice-proxy/sluice/proxy/track"
)

// run serves until ctx ends, which is no error. It leaves the kernel as it is then: a successor takes over
// what it finds.
func run(ctx context.Context, cfg *config.Config) error {
	err := serve(ctx, cfg)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		klog.FromContext(ctx).Info("Stopped, what was served still is")
		return nil
	}
	return err
}

func serve(ctx context.Context, cfg *config.Config) error {
	log := klog.FromContext(ctx)
	log.Info("Starting", "version", version(), "mode", cfg.Mode, "node", cfg.Node.Name)
	mode := chooseMode(ctx, cfg.Mode, newModeConfig(cfg))
	tracker := track.New(track.Config{ExternalIPs: cfg.ExternalIPs, Priority: cfg.PriorityServices})
	requests := metrics.WatchClient()
	origin, err := findOrigin(ctx, cfg, tracker)
	if err != nil {
		return err
	}
	dataplanes, err := prepareKernel(ctx, cfg, mode)
	if err != nil {
		return err
	}
	nodeConfig := cfg.Node
	nodeConfig.Families, nodeConfig.RelayLocalhost = families(dataplanes), mode.relays
	node := nodeinfo.New(nodeConfig)
	log.Info("Serving", "IPv4", dataplanes[proxy.IPv4] != nil, "IPv6", dataplanes[proxy.IPv6] != nil)
	if err := checkClusterCIDRs(ctx, nodeConfig); err != nil {
		return err
	}
	warnOfNodePorts(ctx, nodeConfig)

	group, ctx := errgroup.WithContext(ctx)
	addrs, err := nodeinfo.AddrsAtLast(ctx)
	if err != nil {
		return err
	}
	node.SetAddrs(addrs)
	group.Go(func() error { nodeinfo.WatchAddrs(ctx, node.SetAddrs); return nil })
	if cfg.File != nil {
		group.Go(func() error { return cfg.File.Changed(ctx) })
	}

	p := &proxier{
		cfg: cfg, mode: mode, tracker: tracker, node: node, dataplanes: dataplanes, formers: formers(ctx, mode.name, cfg), requests: requests,
	}
	group.Go(func() error { return p.serve(ctx, group, origin) })
	return group.Wait()
}

// prepareKernel makes the dataplanes of the families that this node has, and sets what they need.
func prepareKernel(ctx context.Context, cfg *config.Config, chosen mode) (map[proxy.Family]proxy.Dataplane, error) {
	mode := chosen.make(ctx, newModeConfig(cfg))
	var served []proxy.Family
	for _, f := range proxy.Families {
		err := supported(ctx, mode, f)
		if err != nil && f == proxy.IPv6 && lasting(err) {
			// A node without IPv6, or without what a mode needs for it, is a usual thing.
			klog.FromContext(ctx).Info("Serving IPv4 alone", "reason", err.Error())
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("mode %s cannot work on this node: %w", mode.Name(), err)
		}
		served = append(served, f)
	}
	if p, ok := mode.(proxy.Preparer); ok {
		if err := p.Prepare(ctx, served); err != nil {
			return nil, fmt.Errorf("prepare the kernel for mode %s: %w", mode.Name(), err)
		}
	}
	dataplanes := map[proxy.Family]proxy.Dataplane{}
	for _, f := range served {
		dataplane, err := mode.New(f)
		if err != nil {
			return nil, fmt.Errorf("prepare mode %s: %w", mode.Name(), err)
		}
		dataplanes[f] = dataplane
	}
	// Only now: a kernel may have loaded connection tracking when it was first asked for a rule with it.
	if err := conntrack.Tune(ctx, sysctl.Tree{}, cfg.Conntrack); err != nil {
		return nil, err
	}
	setOOMScore(ctx, cfg.OOMScoreAdj)
	if !chosen.relays && cfg.Node.LocalhostNodePorts && cfg.Node.NodePorts.ServesLocalhost() {
		if err := (sysctl.Tree{}).RouteLocalnet(); err != nil {
			return nil, fmt.Errorf("let NodePorts work on localhost: %w", err)
		}
	}
	return dataplanes, nil
}

// supported says why the node cannot serve a family in a mode.
func supported(ctx context.Context, mode proxy.Mode, f proxy.Family) error {
	if why := nodeinfo.IPv6Missing(); f == proxy.IPv6 && why != "" {
		return noIPv6(why)
	}
	return mode.Supported(ctx, f)
}

// noIPv6 says why the kernel has no IPv6.
type noIPv6 string

func (why noIPv6) Error() string { return string(why) }

// lasting tells whether the node lacks what a family needs. Any other trouble another start may find gone, and it
// must not cost the node the family until then.
func lasting(err error) bool {
	if _, ok := errors.AsType[noIPv6](err); ok || errors.Is(err, xtables.ErrNotFound) || errors.Is(err, nft.ErrNotFound) {
		return true
	}
	if refused, ok := errors.AsType[*nft.RefusedError](err); ok {
		return !refused.Resource
	}
	if errors.Is(err, syscall.EAFNOSUPPORT) { // IPVS without IPv6
		return true
	}
	refused, ok := errors.AsType[*xtables.RestoreError](err)
	return ok && !refused.Resource
}

func families(dataplanes map[proxy.Family]proxy.Dataplane) []proxy.Family {
	var list []proxy.Family
	for _, f := range proxy.Families {
		if dataplanes[f] != nil {
			list = append(list, f)
		}
	}
	return list
}

// checkClusterCIDRs finds what no flag alone shows: that pods cannot be told from others.
func checkClusterCIDRs(ctx context.Context, cfg nodeinfo.Config) error {
	cidrs := cfg.PodDetector.ClusterCIDRs
	if cfg.PodDetector.Mode != nodeinfo.ClusterCIDR {
		return nil
	}
	if len(cidrs) == 0 {
		klog.FromContext(ctx).Info("Without --cluster-cidr traffic of pods is not told from other traffic, and none to a ClusterIP is masqueraded")
		return nil
	}
	for _, p := range cidrs {
		if slices.Contains(cfg.Families, proxy.FamilyOf(p.Addr())) {
			return nil
		}
	}
	return fmt.Errorf("--cluster-cidr: %v has no CIDR of %v, which is all that this node serves", cidrs, cfg.Families)
}

// warnOfNodePorts says where more addresses serve NodePorts than somebody may have thought of.
func warnOfNodePorts(ctx context.Context, cfg nodeinfo.Config) {
	for _, f := range cfg.Families {
		if !cfg.NodePorts.Names(f) {
			klog.FromContext(ctx).Info("NodePorts are served on every address of a family, because --nodeport-addresses names none", "family", f)
		}
	}
}

// setOOMScore keeps the kernel from killing the proxy first when memory runs out. It is not worth failing for.
func setOOMScore(ctx context.Context, score int) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(score)), 0o644); err != nil {
		klog.FromContext(ctx).V(2).Info("Kept oom_score_adj", "reason", err.Error())
	}
}

// proxier ties the parts together.
type proxier struct {
	cfg        *config.Config
	mode       mode
	tracker    *track.Tracker
	node       *nodeinfo.Info
	dataplanes map[proxy.Family]proxy.Dataplane
	formers    []proxy.Mode // the other modes

	requests   *metrics.Client
	metrics    *metrics.Metrics
	health     *healthcheck.Server
	relay      *relay.Relay
	questions  *questions
	history    *history.History
	events     report.EventFunc
	nodeEvents func(report.Event)
}

// serve starts everything in group, and runs the loop until ctx ends.
func (p *proxier) serve(ctx context.Context, group *errgroup.Group, o origin) error {
	source := newSource(p, o)
	p.events, p.nodeEvents = source.event, source.nodeEvent
	p.metrics = metrics.New(metrics.Config{
		Mode: p.mode.name, Changes: p.changes, Client: p.requests, Silence: source.silence, Build: build(), Features: features(p.cfg.Gates),
	})
	p.metrics.Clients(p.remembered())
	if slices.ContainsFunc(slices.Collect(maps.Values(p.dataplanes)), iptables.Counts) {
		p.metrics.Packets(iptables.InvalidDropped, iptables.LocalhostNodePorts)
	}
	p.questions = &questions{mode: p.mode.name, input: p.tracker.Input, relay: p.mode.name != iptables.Name}
	p.questions.audit = audit.New(inspectors(p.dataplanes), p.questions.applied)
	p.history = history.New(time.Now)
	p.relay = relay.New(relay.Config{Failed: p.metrics.RelayFailed, AsNode: p.mode.relays})
	p.health = healthcheck.New(healthcheck.Config{
		Families:     families(p.dataplanes),
		SyncPeriod:   p.cfg.SyncPeriod,
		Disabled:     p.cfg.HealthzAddr == "",
		Healthz:      p.metrics.Healthz,
		Livez:        p.metrics.Livez,
		ListenFailed: p.listenFailed,
	})
	group.Go(func() error { source.run(ctx); return nil })
	group.Go(func() error { return p.serveHealth(ctx) })
	group.Go(func() error { return p.serveMetrics(ctx) })
	group.Go(func() error { ask.Serve(ctx, ask.Name, p.told()); return nil })
	if err := source.ready(ctx); err != nil {
		return err
	}
	p.nodeEvents(report.Event{Reason: "Starting", Action: "StartKubeProxy", Note: "Sluice " + version() + ", mode " + p.mode.name})
	makeRoom(ctx, p.formers)
	loop.New(loop.Config{
		Changes:     p.tracker,
		Nodes:       p.node,
		Synced:      source.synced,
		Dataplanes:  p.dataplanes,
		MinInterval: p.cfg.MinSyncPeriod,
		Observers:   p.observers(),
		Audit:       p.audits,
	}).Run(ctx)
	p.health.CloseServices()
	p.relay.Close()
	return nil
}
