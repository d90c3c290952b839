package config

import (
	_ "embed" // the list of gates
	"maps"
	"slices"
	"strings"
)

//go:embed gates.txt
var gatesText string

// gate is a feature gate of kube-proxy.
type gate struct {
	stage     string
	byDefault bool
	locked    bool // to the default
}

// knownGates are the names that may occur in the configuration of a kube-proxy that Sluice replaces: those of all of
// Kubernetes, because kube-proxy takes them all.
func knownGates() map[string]gate {
	gates := map[string]gate{}
	for line := range strings.Lines(gatesText) {
		words := strings.Fields(line)
		if words[0] == "#" {
			continue
		}
		gates[words[0]] = gate{stage: words[1], byDefault: words[2] == "true", locked: len(words) == 4}
	}
	return gates
}

// The gates that change what Sluice does. The logging ones are for the library that logs.
const (
	allowServiceExternalIPs = "AllowServiceExternalIPs"
	contextualLogging       = "ContextualLogging"
	loggingAlphaOptions     = "LoggingAlphaOptions"
	loggingBetaOptions      = "LoggingBetaOptions"
)

var usedGates = []string{allowServiceExternalIPs, contextualLogging, loggingAlphaOptions, loggingBetaOptions}

// Gate is a feature gate with the value that it has.
type Gate struct {
	Name, Stage string
	Enabled     bool
}

// gates checks the values that are set, and returns those that change what Sluice does. Of the others some are about code that
// Sluice does not have, and some about what it always does; to set them is worth a note.
func (o *Options) gates(c *checker) []Gate {
	known, set := knownGates(), o.Kube.FeatureGates
	for _, name := range slices.Sorted(maps.Keys(set)) {
		g, ok := known[name]
		switch {
		case !ok:
			c.add("featureGates", "there is no gate %q", name)
		case g.locked && set[name] != g.byDefault:
			c.add("featureGates", "%s is locked to %t", name, g.byDefault)
		case set[name] != g.byDefault && !slices.Contains(usedGates, name):
			o.note("feature gate "+name, "nothing in Sluice depends on it")
		}
	}
	var used []Gate
	for _, name := range usedGates {
		g := known[name]
		used = append(used, Gate{Name: name, Stage: g.stage, Enabled: enabled(g, name, set)})
	}
	return used
}

func enabled(g gate, name string, set map[string]bool) bool {
	if value, ok := set[name]; ok {
		return value
	}
	if value, ok := set["AllAlpha"]; ok && g.stage == "alpha" {
		return value
	}
	if value, ok := set["AllBeta"]; ok && g.stage == "beta" {
		return value
	}
	return g.byDefault
}
