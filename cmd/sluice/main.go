// Command sluice makes a node serve the Services of a cluster, or of a directory of YAML files. See
// the README for how to run it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/cmd/sluice/plugin"
)

// heapGrowth is by how many percent the heap may grow before it is collected, unless the environment variable GOGC says
// otherwise. What this process holds hardly changes once the cluster is known and little of it is garbage, so
// that frequent collections cost next to nothing, and memory is missed on every node.
const heapGrowth = 25

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	command := newCommand
	if plugin.Called(os.Args[0]) {
		command = plugin.NewCommand
	}
	err := command().ExecuteContext(ctx)
	klog.Flush()
	if code, ok := errors.AsType[exitCode](err); ok {
		os.Exit(int(code))
	}
	if code, ok := errors.AsType[plugin.ExitCode](err); ok {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	options := config.NewOptions(modeNames())
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Serve Services on this node",
		Long: "Sluice makes this node's kernel serve Services: it forwards what is sent to their addresses to\n" +
			"healthy pods. It takes the flags and the configuration file of kube-proxy and replaces it.",
		Args:          cobra.NoArgs,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return start(cmd.Context(), options) },
	}
	root.SetGlobalNormalizationFunc(normalize)
	options.AddFlags(root.Flags())
	options.AddLogFlags(root.PersistentFlags())
	root.AddCommand(
		newCheckCommand(options), newExplainCommand(options), newTraceCommand(options), newDiffCommand(options), newBundleCommand(options),
		newCleanupCommand(options), newVersionCommand(),
	)
	return root
}

// start does what the options ask for. Nothing is touched before all of them are known to be right.
func start(ctx context.Context, options *config.Options) error {
	if err := options.Complete(); err != nil {
		return err
	}
	cfg, err := options.Validate()
	if err != nil {
		return err
	}
	if err := options.StartLogging(); err != nil {
		return err
	}
	for _, note := range cfg.Notes {
		klog.FromContext(ctx).Info("Setting has no effect", "setting", note.Setting, "reason", note.Reason)
	}
	switch {
	case options.WriteConfigTo != "":
		return options.Write()
	case options.Cleanup:
		return sweep(ctx, os.Stdout, modeSweepers(ctx, modes, ""), false)
	case options.InitOnly:
		_, err := prepareKernel(ctx, cfg, chooseMode(ctx, cfg.Mode, newModeConfig(cfg)))
		return err
	}
	return run(ctx, cfg)
}

// normalize lets flags be spelled as users of kube-proxy are used to.
func normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	name = strings.ReplaceAll(name, "_", "-")
	if name == "proxy-mode" {
		name = "mode"
	}
	return pflag.NormalizedName(name)
}
