package main

import (
	"slices"
	"strconv"
	"strings"
)

// gate is a feature gate of kube-proxy.
type gate struct {
	name   string
	locked bool // true, and nothing else
}

const allowServiceExternalIPs = "AllowServiceExternalIPs"

// gates are the names that may occur in the arguments of a kube-proxy that Sluice replaces. Only the
// first changes what Sluice does: of the others, some are about code that it does not have, and
// some about what it always does.
var gates = []gate{
	{name: allowServiceExternalIPs},
	{name: "AllAlpha"},
	{name: "AllBeta"},
	{name: "ComponentFlagz"},
	{name: "ComponentStatusz"},
	{name: "ContextualLogging"},
	{name: "KubeProxyIPVS"},
	{name: "KubeProxyNFTablesLocalhostNodePorts"},
	{name: "LoggingAlphaOptions"},
	{name: "LoggingBetaOptions"},
	{name: "MultiCIDRServiceAllocator", locked: true},
	{name: "NFTablesNetlink"},
	{name: "NFTablesProxyMode", locked: true},
	{name: "PreferSameTrafficDistribution", locked: true},
	{name: "WatchList"},
	{name: "WatchListClient"},
}

// externalIPs checks all gates and says whether spec.externalIPs is served.
func externalIPs(c *checker, pairs []string) bool {
	allowed := true
	for _, pair := range pairs {
		name, text, _ := strings.Cut(pair, "=")
		name, text = strings.TrimSpace(name), strings.TrimSpace(text)
		i := slices.IndexFunc(gates, func(g gate) bool { return g.name == name })
		if i < 0 {
			c.add("feature-gates", "there is no gate %q", name)
			continue
		}
		value, err := strconv.ParseBool(text)
		switch {
		case err != nil:
			c.add("feature-gates", "%s=%q is neither true nor false", name, text)
		case gates[i].locked && !value:
			c.add("feature-gates", "%s cannot be switched off", name)
		case name == allowServiceExternalIPs:
			allowed = value
		}
	}
	return allowed
}
