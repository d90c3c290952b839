package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/kubeproxy"
)

// cleanupOptions are the flags of the command.
type cleanupOptions struct {
	mode       string
	kubeProxy  bool
	dryRun     bool
	drain      time.Duration
	sysctlRoot string
}

func newCleanupCommand(options *config.Options) *cobra.Command {
	var o cleanupOptions
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything that Sluice, or kube-proxy, has put into this node's kernel",
		Long: "Remove everything that Sluice has put into this node's kernel, of all modes and both IP families.\n" +
			"Services are not served any more then. With --kube-proxy, remove instead what kube-proxy has left, of\n" +
			"all its modes; Sluice may serve meanwhile. What is removed is printed, a line for each object, and then\n" +
			"which kernel parameters that kube-proxy sets stay.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := options.StartLogging(); err != nil {
				return err
			}
			sweepers, err := o.sweepers(cmd.Context())
			if err != nil {
				return err
			}
			return sweep(cmd.Context(), cmd.OutOrStdout(), sweepers, o.dryRun)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.mode, "mode", "", "Clean up after this mode of Sluice alone: "+strings.Join(modeNames(), ", ")+".")
	flags.BoolVar(&o.kubeProxy, "kube-proxy", false, "Remove what kube-proxy has left, and nothing of Sluice. It must not run.")
	flags.BoolVar(&o.dryRun, "dry-run", false, "Print what would be removed, and change nothing.")
	flags.DurationVar(&o.drain, "drain", 0, "Where another proxy serves by now, with --kube-proxy Sluice: let connections through IPVS end first, for so long at most. Without it they end at once.")
	flags.StringVar(&o.sysctlRoot, "sysctl-root", "", "Folder in which proc/sys has the node's kernel parameters, if those in /proc/sys cannot be written, as in a container.")
	return cmd
}

// sweeper is something that can be removed.
type sweeper struct {
	name   string
	traces func(context.Context) ([]string, error) // names what remove removes
	remove func(context.Context) error
	first  func(context.Context) error // if it is not nil, it is done before anything of any sweeper is removed
	stays  []kubeproxy.Parameter       // who has left something has set these, too
}

// sweepers are what the flags ask for.
func (o cleanupOptions) sweepers(ctx context.Context) ([]sweeper, error) {
	if o.kubeProxy {
		if o.mode != "" {
			return nil, errors.New("--mode: with --kube-proxy, what is left of all its modes is removed, and nothing of Sluice's")
		}
		if err := kubeProxyIsGone(ctx); err != nil {
			return nil, err
		}
		all := kubeProxySweepers()
		if o.drain > 0 {
			all[0].first = func(ctx context.Context) error { return drainKubeProxy(ctx, o.drain) }
		}
		return all, nil
	}
	chosen := modes
	if o.mode != "" && o.mode != config.Auto {
		m, ok := findMode(o.mode)
		if !ok {
			return nil, fmt.Errorf("--mode: %q is not available; the modes are %s", o.mode, strings.Join(modeNames(), ", "))
		}
		chosen = []mode{m}
	}
	all := modeSweepers(ctx, chosen, o.sysctlRoot)
	if o.drain > 0 {
		all[0].first = func(ctx context.Context) error { return drain(ctx, chosen, o.drain) }
	}
	return all, nil
}

// modeSweepers are for what Sluice has in some modes.
func modeSweepers(ctx context.Context, chosen []mode, sysctlRoot string) []sweeper {
	var all []sweeper
	for _, m := range chosen {
		made := m.make(ctx, ModeConfig{IPVS: ipvs.Config{Sysctls: sysctl.Tree{Root: sysctlRoot}}})
		all = append(all, sweeper{name: "mode " + m.name, traces: made.Traces, remove: made.Cleanup})
	}
	return all
}

// kubeProxySweepers are for what kube-proxy has left. Their order matters: rules use objects and ipsets, and virtual servers are known by the
// rest of what mode ipvs has.
func kubeProxySweepers() []sweeper {
	virtual := kubeProxysServers()
	all := []sweeper{
		{name: "kube-proxy's tables", traces: kubeproxy.Tables{}.Traces, remove: kubeproxy.Tables{}.Remove},
		{name: "kube-proxy's virtual servers", traces: virtual.Traces, remove: virtual.Remove, stays: kubeproxy.VirtualParameters},
		{name: "kube-proxy's rules", traces: kubeproxy.Rules{}.Traces, remove: kubeproxy.Rules{}.Remove, stays: kubeproxy.RulesParameters},
		{name: "kube-proxy's accounting objects", traces: kubeproxy.Objects{}.Traces, remove: kubeproxy.Objects{}.Remove},
		{name: "kube-proxy's ipsets", traces: kubeproxy.Sets{}.Traces, remove: kubeproxy.Sets{}.Remove, stays: kubeproxy.VirtualParameters},
	}
	for i := range all {
		all[i].stays = slices.Concat(kubeproxy.TrackingParameters, all[i].stays)
	}
	return all
}

func kubeProxysServers() kubeproxy.Virtual {
	return kubeproxy.Virtual{Ours: ipvs.Owned, KeepInterface: ipvs.WantsCompatInterface}
}

// kubeProxyIsGone is an error while it runs: it would write again what is removed.
func kubeProxyIsGone(ctx context.Context) error {
	running, all, err := kubeproxy.Processes()
	if err != nil {
		return err
	}
	if len(running) > 0 {
		return fmt.Errorf("kube-proxy runs on this node (process %d): stop it first, and see that nothing starts it again", running[0])
	}
	if !all {
		klog.FromContext(ctx).Info("Cannot see whether kube-proxy runs: this container sees its own processes alone")
	}
	return nil
}

// sweep removes everything that sweepers find and prints what is gone then or, in a dry run, what would be. It goes on after an error,
// so that as little as possible stays.
func sweep(ctx context.Context, out io.Writer, sweepers []sweeper, dryRun bool) error {
	var errs []error
	found := make([][]string, len(sweepers))
	total := 0
	for i, s := range sweepers {
		var err error
		found[i], err = s.traces(ctx)
		errs = append(errs, s.wrap(err))
		total += len(found[i])
	}
	if err := errors.Join(errs...); total == 0 && err == nil {
		fmt.Fprintln(out, "Nothing to remove")
		return nil
	}
	for _, s := range sweepers {
		if s.first == nil || dryRun {
			continue
		}
		if err := s.first(ctx); err != nil {
			return err
		}
	}
	for i, s := range sweepers {
		gone := found[i]
		if !dryRun && len(gone) > 0 {
			var err error
			gone, err = s.sweep(ctx, gone)
			errs = append(errs, s.wrap(err))
		}
		for _, what := range gone {
			fmt.Fprintln(out, what)
		}
	}
	for _, line := range staying(sysctl.Tree{}, sweepers, found) {
		fmt.Fprintln(out, line)
	}
	return errors.Join(errs...)
}

// staying names the kernel parameters that go with what sweepers found, each once: they are not removed.
func staying(tree sysctl.Tree, sweepers []sweeper, found [][]string) []string {
	var lines []string
	for i, s := range sweepers {
		if len(found[i]) == 0 {
			continue
		}
		for _, p := range s.stays {
			if line, stays := p.Stays(tree); stays && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

func (s sweeper) wrap(err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

// sweep removes what was found, and gives what of it is gone. That something is left is an error.
func (s sweeper) sweep(ctx context.Context, found []string) (gone []string, err error) {
	err = s.remove(ctx)
	after, listErr := s.traces(ctx)
	left := map[string]int{}
	for _, what := range after {
		left[what]++
	}
	for _, what := range found {
		if left[what] == 0 {
			gone = append(gone, what)
			continue
		}
		left[what]--
		if err == nil {
			err = fmt.Errorf("still there, or there again: %s", what)
		}
	}
	return gone, errors.Join(err, listErr)
}
