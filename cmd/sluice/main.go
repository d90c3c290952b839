// Command sluice makes a node serve the Services of a cluster, or of a directory of YAML files. See
// the README for how to run it.
package main

import (
	"context"
	goflag "flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
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
	err := newCommand().ExecuteContext(ctx)
	klog.Flush()
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	options := NewOptions()
	root := &cobra.Command{
		Use:   "sluice",
		Short: "Serve Services on this node",
		Long: "Sluice makes this node's kernel serve Services: it forwards what is sent to their addresses to\n" +
			"healthy pods. It takes the flags of kube-proxy and replaces it.",
		Args:          cobra.NoArgs,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.Complete(cmd.Flags())
			cfg, err := options.Validate()
			if err != nil {
				return err
			}
			switch {
			case options.Cleanup:
				return cleanup(cmd.Context(), modes)
			case options.InitOnly:
				ctx := cmd.Context()
				_, err := prepareKernel(ctx, cfg.withMode(chooseMode(ctx, cfg.Mode, cfg.ModeConfig)))
				return err
			}
			return run(cmd.Context(), cfg)
		},
	}
	options.AddFlags(root.Flags())
	addLogFlags(root.PersistentFlags())
	root.SetGlobalNormalizationFunc(normalize)
	root.AddCommand(newCleanupCommand(), newVersionCommand())
	return root
}

// addLogFlags takes those of klog's flags that still mean something.
func addLogFlags(flags *pflag.FlagSet) {
	all := goflag.NewFlagSet("klog", goflag.ContinueOnError)
	klog.InitFlags(all)
	for _, name := range []string{"v", "vmodule"} {
		flags.AddGoFlag(all.Lookup(name))
	}
}

// normalize lets flags be spelled as users of kube-proxy are used to.
func normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	name = strings.ReplaceAll(name, "_", "-")
	if name == "proxy-mode" {
		name = "mode"
	}
	return pflag.NormalizedName(name)
}
