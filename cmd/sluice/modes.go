package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/nftables"
	"github.com/sluice-proxy/sluice/proxy"
)

// mode is a way to program the kernel that --mode offers.
type mode struct {
	name string
	make func(context.Context, ModeConfig) proxy.Mode

	// relays says that its rules cannot serve NodePorts on 127.0.0.1, so that a relay does.
	relays bool
}

// ModeConfig is what modes take from the configuration.
type ModeConfig struct {
	IPTablesBackend xtables.Backend
	IPVS            ipvs.Config
	TCPBeLiberal    bool // connection tracking will be liberal, whatever it is now
}

func newModeConfig(cfg *config.Config) ModeConfig {
	return ModeConfig{IPTablesBackend: cfg.IPTablesBackend, IPVS: cfg.IPVS, TCPBeLiberal: cfg.Conntrack.TCPBeLiberal}
}

// modes has a line for each mode. Their order is that in which --mode=auto tries them: nftables, then ipvs, then iptables.
var modes = []mode{
	{name: nftables.Name, make: newNFTables},
	{name: ipvs.Name, make: newIPVS, relays: true},
	{name: iptables.Name, make: newIPTables},
}

func newNFTables(_ context.Context, cfg ModeConfig) proxy.Mode {
	return nftables.NewMode(nftables.Config{DropInvalid: cfg.dropsInvalid()})
}

func newIPVS(_ context.Context, cfg ModeConfig) proxy.Mode {
	c := cfg.IPVS
	c.DropInvalid = cfg.dropsInvalid()
	return ipvs.NewMode(c)
}

func newIPTables(ctx context.Context, cfg ModeConfig) proxy.Mode {
	if found, err := xtables.Detect(ctx, proxy.IPv4); err == nil && cfg.IPTablesBackend == xtables.Auto {
		klog.FromContext(ctx).Info("Found iptables", "backend", found)
	}
	return iptables.NewMode(iptables.Config{
		Backend:     cfg.IPTablesBackend,
		DropInvalid: cfg.dropsInvalid(),
	})
}

// dropsInvalid tells whether packets that connection tracking cannot place are to be dropped.
func (cfg ModeConfig) dropsInvalid() bool {
	return !cfg.TCPBeLiberal && !conntrack.BeLiberal(sysctl.Tree{})
}

// findMode is the mode of that name.
func findMode(name string) (mode, bool) {
	i := slices.IndexFunc(modes, func(m mode) bool { return m.name == name })
	if i < 0 {
		return mode{}, false
	}
	return modes[i], true
}

func modeNames() []string {
	var names []string
	for _, m := range modes {
		names = append(names, m.name)
	}
	return names
}

// chooseMode is the mode of that name or, for config.Auto, the first of the modes that this node can run, with a line in
// the log that says why. If it can run none, it is the last: its error names what it lacks.
func chooseMode(ctx context.Context, name string, cfg ModeConfig) mode {
	if m, ok := findMode(name); ok {
		return m
	}
	var reasons []string
	for i, m := range modes {
		err := m.make(ctx, cfg).Supported(ctx, proxy.IPv4)
		if err == nil || i == len(modes)-1 {
			reason := "it is preferred, and this node has what it needs"
			if len(reasons) > 0 {
				reason = strings.Join(reasons, "; ")
			}
			klog.FromContext(ctx).Info("Chose the mode", "mode", m.name, "reason", reason)
			return m
		}
		reasons = append(reasons, fmt.Sprintf("%s cannot work here: %v", m.name, err))
	}
	return mode{} // there is at least one mode
}
