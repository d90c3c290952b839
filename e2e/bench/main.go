// Command bench measures Sluice and kube-proxy, one after the other, in the same run: the same API server,
// the same objects, the same kernel. It writes a report with absolute figures and ratios, and says
// which goals are met. It leaves nothing else behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// config says what to measure, and how long.
type config struct {
	Loads                        []load
	Mode                         *mode
	Backends                     []string
	Sluice, KubeProxy, APIServer string // paths of programs
	Out                          string // path of the report
	Asked                        bool   // measure the answers to questions, of Sluice alone, instead of everything else

	SharedPorts int           // ports of the load-balancer IP
	Changes     int           // that are timed one by one
	Pause       time.Duration // from one of them to the next
	Batch       int           // changes whose CPU time is counted
	BatchRate   float64       // of them in a second
	Idle        time.Duration // how long nothing happens
	Churn       time.Duration
	ChurnRate   float64 // changes a second
	Connects    int     // to each target
}

func main() {
	cfg, err := parseFlags(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (config, error) {
	var c config
	var name, sizes, alone, backends string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&name, "mode", "iptables", "the mode that both run in")
	fs.StringVar(&sizes, "n", "default", "numbers of services, with 2 endpoints each; 1000x50 are 1000 with 50")
	fs.StringVar(&alone, "alone", "default", "the same, for Sluice alone")
	fs.StringVar(&backends, "backends", "", "iptables backends, nft or legacy; by default both")
	fs.StringVar(&c.Sluice, "sluice", "bin/sluice", "path of the binary")
	fs.StringVar(&c.KubeProxy, "kube-proxy", "e2e/bin/kube-proxy", "path of the binary")
	fs.StringVar(&c.APIServer, "apiserver", "e2e/bin/kube-apiserver", "path of the binary")
	fs.StringVar(&c.Out, "out", "docs/benchmarks.md", "where to write the report")
	fs.BoolVar(&c.Asked, "asked", false, "measure what sluice explain and diff take, and whether they disturb: of Sluice alone, and nothing else")
	fs.IntVar(&c.SharedPorts, "shared-ports", 0, "ports of the load-balancer IP, 0 for as many as the mode has by default")
	fs.IntVar(&c.Changes, "changes", 20, "changes to time one by one")
	fs.DurationVar(&c.Pause, "pause", 2*time.Second, "time from one of them to the next")
	fs.IntVar(&c.Batch, "batch", 200, "changes whose CPU time is counted")
	fs.Float64Var(&c.BatchRate, "batch-rate", 10, "how many of them a second")
	fs.DurationVar(&c.Idle, "idle", 2*time.Minute, "how long nothing happens")
	fs.DurationVar(&c.Churn, "churn", time.Minute, "how long the churn lasts")
	fs.Float64Var(&c.ChurnRate, "churn-rate", 20, "changes a second in the churn")
	fs.IntVar(&c.Connects, "connects", 4000, "connections to each target")
	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	if c.Mode = findMode(name); c.Mode == nil {
		return config{}, fmt.Errorf("-mode: %q is none that can be measured", name)
	}
	if c.Backends = words(backends); len(c.Backends) == 0 {
		c.Backends = c.Mode.backends
	}
	if c.SharedPorts == 0 {
		c.SharedPorts = c.Mode.sharedPorts
	}
	if sizes == "default" {
		sizes = map[bool]string{false: c.Mode.loads, true: ""}[c.Asked]
	}
	if alone == "default" {
		alone = map[bool]string{false: c.Mode.alone, true: c.Mode.asked}[c.Asked]
	}
	if err := c.addLoads(sizes, alone); err != nil {
		return config{}, err
	}
	return c, c.validate()
}

func (c *config) addLoads(sizes, alone string) error {
	both, err := parseLoads(sizes, false)
	if err != nil {
		return fmt.Errorf("-n: %w", err)
	}
	more, err := parseLoads(alone, true)
	if err != nil {
		return fmt.Errorf("-alone: %w", err)
	}
	c.Loads = append(both, more...)
	return nil
}

// words splits at commas and blanks.
func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

func (c config) validate() error {
	for _, b := range c.Backends {
		if !slices.Contains(c.Mode.backends, b) {
			return fmt.Errorf("-backends: mode %s has %q, not %q", c.Mode.name, c.Mode.backends, b)
		}
	}
	switch {
	case c.Asked && slices.ContainsFunc(c.Loads, func(l load) bool { return !l.alone }):
		return fmt.Errorf("-asked: kube-proxy answers nothing; use -alone, and -n \"\"")
	case len(c.Loads) == 0:
		return fmt.Errorf("-n and -alone: nothing to measure")
	case c.SharedPorts < 1 || c.SharedPorts > maxSharedPorts:
		return fmt.Errorf("-shared-ports: want 1 to %d", maxSharedPorts)
	case c.Changes < 1 || c.Batch < 1 || c.Connects < burst:
		return fmt.Errorf("-changes and -batch must be positive, -connects at least %d", burst)
	case c.Pause <= 0 || c.Idle <= 0 || c.BatchRate <= 0 || c.Churn <= 0 || c.ChurnRate <= 0:
		return fmt.Errorf("times and rates must be positive")
	}
	return nil
}
