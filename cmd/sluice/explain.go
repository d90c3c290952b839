package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/manifest"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
	"github.com/sluice-proxy/sluice/proxy/track"
)

// explained are the flags that change what is explained of files.
var explained = []string{
	"manifest-dir", "config", "cluster-cidr", "detect-local-mode", "pod-bridge-interface", "pod-interface-name-prefix", "hostname-override",
	"nodeport-addresses", "iptables-localhost-nodeports", "masquerade-all", "service-cidrs", "feature-gates",
}

func newExplainCommand(root *config.Options) *cobra.Command {
	options, flags := borrow(explained)
	var q question
	var kubeconfig, file string
	cmd := &cobra.Command{
		Use:   "explain {--from IP[%INTERFACE]|pod:NAMESPACE/NAME|outside --to IP:PORT[/PROTOCOL] | NAMESPACE/NAME}",
		Short: "Say what becomes of a new connection on this node, or what the node does for a Service, and why",
		Long: "Say what becomes of a new connection on this node, or what the node does for a Service, and why: which\n" +
			"Service it is for, what kind of client it comes from, which endpoints it may reach and why not the others,\n" +
			"and what address they see. The Sluice that runs on the node is asked, and looks what implements that in the\n" +
			"kernel; the exit code is 2 if that is not as it should be. With --manifest-dir or --bundle, files are read.",
		Args:          cobra.MaximumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			q.service = strings.Join(args, "")
			if err := q.resolve(cmd.Context(), kubeconfig); err != nil {
				return err
			}
			if err := q.check(); err != nil {
				return err
			}
			if err := root.StartLogging(); err != nil {
				return err
			}
			if file != "" {
				of, err := viewsOfBundle(file)
				if err != nil {
					return err
				}
				_, err = q.write(cmd.OutOrStdout(), of, nobodyLooks)
				return err
			}
			if options.Own.ManifestDir == "" {
				return askProxy(cmd.Context(), "/explain", q.values(), cmd.OutOrStdout())
			}
			of, err := viewsOfFiles(cmd.Context(), options)
			if err != nil {
				return err
			}
			_, err = q.write(cmd.OutOrStdout(), of, nobodyLooks)
			return err
		},
	}
	cmd.Flags().AddFlagSet(flags)
	cmd.Flags().StringVar(&q.from, "from", "", "Who connects: an IP, with % and the interface it comes in through if pods are known by that; pod:NAMESPACE/NAME; or outside.")
	cmd.Flags().StringVar(&q.to, "to", "", "What is connected to: IP:PORT, with /udp or /sctp if it is not TCP.")
	cmd.Flags().StringVar(&file, "bundle", "", "File that sluice bundle wrote, to be read instead of asking.")
	cmd.MarkFlagsMutuallyExclusive("bundle", "manifest-dir")
	cmd.Flags().StringVarP(&q.output, "output", "o", "text", "How to print: text or json.")
	cmd.Flags().BoolVar(&q.blind, "intent-only", false, "Say what should be, and do not look what is in the kernel.")
	addKubeconfig(cmd, &kubeconfig)
	return cmd
}

// viewsOfFiles are what would be served on this node from a directory.
func viewsOfFiles(ctx context.Context, options *config.Options) (views, error) {
	cfg, err := validated(options)
	if err != nil {
		return nil, err
	}
	return viewsOf(ctx, cfg)
}

// validated is the configuration that options make.
func validated(options *config.Options) (*config.Config, error) {
	if err := options.Complete(); err != nil {
		return nil, err
	}
	return options.Validate()
}

// viewsOf are what would be served on this node from the configuration's directory.
func viewsOf(ctx context.Context, cfg *config.Config) (views, error) {
	tracker := track.New(track.Config{ExternalIPs: cfg.ExternalIPs})
	files, err := manifest.New(cfg.ManifestDir, tracker)
	if err != nil {
		return nil, err
	}
	if err := readOnce(ctx, files); err != nil {
		return nil, err
	}
	addrs, err := nodeinfo.Addrs()
	if err != nil {
		return nil, err
	}
	nodeConfig := cfg.Node
	nodeConfig.Families = proxy.Families[:]
	node := nodeinfo.New(nodeConfig)
	node.SetAddrs(addrs)
	inputs := tracker.Take().Inputs
	found := map[proxy.Family]*explain.View{}
	for _, f := range proxy.Families {
		found[f] = &explain.View{Snapshot: desired.Build(node.Node(f), inputs), Input: tracker.Input}
	}
	return func(f proxy.Family) *explain.View { return found[f] }, nil
}

// readOnce reads the files as they are now.
func readOnce(ctx context.Context, files *manifest.Source) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); files.Run(ctx) }()
	select {
	case <-files.Synced():
	case <-ctx.Done():
	}
	err := ctx.Err()
	stop()
	<-done
	return err
}
