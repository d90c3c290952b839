package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/preflight"
	"github.com/sluice-proxy/sluice/proxy"
)

// checked are the flags that change what a check looks for.
var checked = []string{
	"config", "mode", "iptables-backend", "iptables-masquerade-bit", "iptables-localhost-nodeports", "nodeport-addresses",
	"ipvs-route-bit", "healthz-bind-address", "metrics-bind-address", "conntrack-tcp-be-liberal",
}

// usualNodePorts are those of an API server that is told nothing else.
const usualNodePorts = "30000-32767"

// exitCode ends the process without another word.
type exitCode int

func (c exitCode) Error() string { return "exit code " + strconv.Itoa(int(c)) }

// exitCodes are those of a check, by what it found worst.
var exitCodes = map[preflight.Severity]exitCode{preflight.Problem: 1, preflight.Warning: 2}

func newCheckCommand(root *config.Options) *cobra.Command {
	options, flags := borrow(checked)
	var output, nodePorts string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look whether this node can run Sluice, and what would get in the way",
		Long: "Look whether this node can run Sluice, and what would get in the way. Nothing is changed; each mode is\n" +
			"tried with rules that are gone at once, but for empty tables of iptables. The exit code is 0 if all is\n" +
			"well, 1 if Services would not work, 2 if something deserves a look.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write, ok := map[string]func(io.Writer, []preflight.Finding) error{"text": writeText, "json": writeJSON}[output]
			if !ok {
				return fmt.Errorf("--output: %q is neither text nor json", output)
			}
			if err := root.StartLogging(); err != nil {
				return err
			}
			findings, err := check(cmd.Context(), options, nodePorts)
			if err != nil {
				return err
			}
			if err := write(cmd.OutOrStdout(), findings); err != nil {
				return err
			}
			if code := exitCodes[preflight.Worst(findings)]; code != 0 {
				return code
			}
			return nil
		},
	}
	cmd.Flags().AddFlagSet(flags)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "How to print: text or json.")
	cmd.Flags().StringVar(&nodePorts, "service-node-port-range", usualNodePorts, "Ports that NodePorts are taken from, as the API server has it.")
	return cmd
}

// borrow is some of the proxy's own flags, for another command, and the options that they set.
func borrow(names []string) (*config.Options, *pflag.FlagSet) {
	options := config.NewOptions(modeNames())
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	all.SetNormalizeFunc(normalize)
	options.AddFlags(all)
	some := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, name := range names {
		some.AddFlag(all.Lookup(name))
	}
	return options, some
}

func check(ctx context.Context, options *config.Options, nodePorts string) ([]preflight.Finding, error) {
	ports, err := portRange(nodePorts)
	if err != nil {
		return nil, fmt.Errorf("--service-node-port-range: %w", err)
	}
	if err := options.Complete(); err != nil {
		return nil, err
	}
	cfg, err := options.Validate()
	if err != nil {
		return nil, err
	}
	var candidates []proxy.Mode
	var relays []string
	for _, m := range modes {
		candidates = append(candidates, m.make(ctx, newModeConfig(cfg)))
		if m.relays {
			relays = append(relays, m.name)
		}
	}
	want := preflight.Want{
		MasqueradeMark: cfg.Node.MasqueradeMark,
		RouteMark:      cfg.IPVS.RouteMark,
		NodePorts:      ports,
		Localhost:      cfg.Node.LocalhostNodePorts && cfg.Node.NodePorts.ServesLocalhost(),
		Relays:         relays,
		Ports:          portsOf(cfg.HealthzAddr, cfg.MetricsAddr),
		BeLiberal:      cfg.Conntrack.TCPBeLiberal,
	}
	if cfg.Mode != config.Auto {
		want.Mode = cfg.Mode
	}
	return preflight.Judge(preflight.Gather(ctx, candidates, supported), want), nil
}

// portRange reads "FIRST-LAST".
func portRange(text string) (preflight.PortRange, error) {
	first, last, _ := strings.Cut(text, "-")
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || from > to {
		return preflight.PortRange{}, fmt.Errorf("%q is not FIRST-LAST", text)
	}
	return preflight.PortRange{First: uint16(from), Last: uint16(to)}, nil
}

// portsOf are the ports of addresses, of which some may be empty.
func portsOf(addresses ...string) []uint16 {
	var ports []uint16
	for _, address := range addresses {
		if a, err := netip.ParseAddrPort(address); err == nil {
			ports = append(ports, a.Port())
		}
	}
	return ports
}

func writeJSON(w io.Writer, findings []preflight.Finding) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"worst": preflight.Worst(findings), "findings": findings})
}

// writeText prints a line for each finding, and one for what to do.
func writeText(w io.Writer, findings []preflight.Finding) error {
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%-8s %-20s %s\n", f.Severity, f.Subject, f.Text); err != nil {
			return err
		}
		if f.Remedy != "" {
			fmt.Fprintf(w, "%-8s %-20s -> %s\n", "", "", f.Remedy)
		}
	}
	return nil
}
