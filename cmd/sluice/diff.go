package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/audit"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
)

// compared are the flags that change what is compared with the kernel, of files.
var compared = slices.Concat(explained, []string{
	"mode", "iptables-backend", "iptables-masquerade-bit", "conntrack-tcp-be-liberal",
	"ipvs-scheduler", "ipvs-exclude-cidrs", "ipvs-route-bit",
})

// differs is the exit code of what is not as it should be in the kernel.
const differs = exitCode(2)

// shownDifferences is how many the text has unless all are asked for.
const shownDifferences = 40

func newDiffCommand(root *config.Options) *cobra.Command {
	options, flags := borrow(compared)
	var output, file string
	var all bool
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Compare what is in this node's kernel with what should be there",
		Long: "Compare what is in this node's kernel with what should be there: name what is missing, what was altered, and\n" +
			"what is foreign among what is Sluice's. Nothing is changed. The Sluice that runs on the node is asked; with\n" +
			"--manifest-dir, the files are what should be there, and --mode says in which mode; --bundle shows what was found\n" +
			"when that was packed. The exit code is 0 if kernel and intent agree, which prints nothing, 2 if they do not, and 1\n" +
			"after an error.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			if err := root.StartLogging(); err != nil {
				return err
			}
			report, err := compare(cmd.Context(), options, file)
			if err != nil {
				return err
			}
			if output == "json" {
				err = report.WriteJSON(cmd.OutOrStdout())
			} else {
				err = report.WriteText(cmd.OutOrStdout(), most(all))
			}
			if err == nil && len(report.Differences) > 0 {
				return differs
			}
			return err
		},
	}
	cmd.Flags().AddFlagSet(flags)
	cmd.Flags().StringVar(&file, "bundle", "", "File that sluice bundle wrote, to be read instead of comparing.")
	cmd.MarkFlagsMutuallyExclusive("bundle", "manifest-dir")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "How to print: text or json.")
	cmd.Flags().BoolVar(&all, "all", false, fmt.Sprintf("Print all differences, not only the first %d.", shownDifferences))
	return cmd
}

// most is how many differences the text has, 0 for all.
func most(all bool) int {
	if all {
		return 0
	}
	return shownDifferences
}

// compare asks the proxy, or reads a bundle, or files.
func compare(ctx context.Context, options *config.Options, bundled string) (report audit.Report, err error) {
	if bundled != "" {
		return comparedInBundle(bundled)
	}
	cfg, err := validated(options)
	if err != nil {
		return report, err
	}
	if cfg.ManifestDir != "" {
		return compareFiles(ctx, cfg)
	}
	var body bytes.Buffer
	if err := askProxy(ctx, "/diff", nil, &body); err != nil {
		return report, err
	}
	if err := json.Unmarshal(body.Bytes(), &report); err != nil {
		return report, fmt.Errorf("read what the proxy says: %w", err)
	}
	if cfg.Mode != config.Auto && cfg.Mode != report.Mode {
		return report, fmt.Errorf("--mode: the proxy of this node runs in mode %s", report.Mode)
	}
	return report, nil
}

// compareFiles compares the kernel with what the files of a directory ask for, without a proxy.
func compareFiles(ctx context.Context, cfg *config.Config) (report audit.Report, err error) {
	m, ok := findMode(cfg.Mode)
	if !ok {
		return report, fmt.Errorf("--mode: say in which mode the files are served: %s", strings.Join(modeNames(), ", "))
	}
	of, err := viewsOf(ctx, cfg)
	if err != nil {
		return report, err
	}
	mode := m.make(ctx, newModeConfig(cfg))
	dataplanes := map[proxy.Family]proxy.Dataplane{}
	for _, f := range proxy.Families {
		if f == proxy.IPv6 && nodeinfo.IPv6Missing() != "" {
			continue
		}
		if dataplanes[f], err = mode.New(f); err != nil {
			return report, err
		}
	}
	q := &questions{mode: m.name}
	for _, f := range proxy.Families {
		q.views[f].Store(of(f))
	}
	q.audit = audit.New(inspectors(dataplanes), q.applied)
	return q.differences(ctx)
}

// inspectors are the dataplanes that can compare the kernel.
func inspectors(dataplanes map[proxy.Family]proxy.Dataplane) map[proxy.Family]proxy.Inspector {
	able := map[proxy.Family]proxy.Inspector{}
	for f, d := range dataplanes {
		if i, ok := d.(proxy.Inspector); ok {
			able[f] = i
		}
	}
	return able
}
