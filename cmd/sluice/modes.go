package main

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// mode is a way to program the kernel that --mode offers.
type mode struct {
	name string
	make func(context.Context, ModeConfig) proxy.Mode
}

// ModeConfig is what modes take from the flags.
type ModeConfig struct {
	IPTablesBackend xtables.Backend
	TCPBeLiberal    bool // connection tracking will be liberal, whatever it is now
}

// modes has a line for each mode; the first is the default.
var modes = []mode{
	{iptables.Name, newIPTables},
}

func newIPTables(ctx context.Context, cfg ModeConfig) proxy.Mode {
	if found, err := xtables.Detect(ctx, proxy.IPv4); err == nil && cfg.IPTablesBackend == xtables.Auto {
		klog.FromContext(ctx).Info("Found iptables", "backend", found)
	}
	return iptables.NewMode(iptables.Config{
		Backend:     cfg.IPTablesBackend,
		DropInvalid: !cfg.TCPBeLiberal && !conntrack.BeLiberal(sysctl.Tree{}),
	})
}

// findMode is the mode of that name; the first for an empty one.
func findMode(name string) (mode, error) {
	if name == "" {
		return modes[0], nil
	}
	for _, m := range modes {
		if m.name == name {
			return m, nil
		}
	}
	return mode{}, fmt.Errorf("%q is not available; the modes are %s", name, modeNames())
}

func modeNames() string {
	names := make([]string, len(modes))
	for i, m := range modes {
		names[i] = m.name
	}
	return strings.Join(names, ", ")
}
