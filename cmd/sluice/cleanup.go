package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
)

func newCleanupCommand(options *config.Options) *cobra.Command {
	var only string
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything that Sluice has put into this node's kernel",
		Long: "Remove everything that Sluice has put into this node's kernel, of all modes and both IP families.\n" +
			"Services are not served any more then. Kernel parameters stay as they are.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := options.StartLogging(); err != nil {
				return err
			}
			chosen := modes
			if only != "" && only != config.Auto {
				m, ok := findMode(only)
				if !ok {
					return fmt.Errorf("--mode: %q is not available; the modes are %s", only, strings.Join(modeNames(), ", "))
				}
				chosen = []mode{m}
			}
			if limit > 0 {
				if err := drain(cmd.Context(), chosen, limit); err != nil {
					return err
				}
			}
			return cleanup(cmd.Context(), chosen)
		},
	}
	cmd.Flags().StringVar(&only, "mode", "", "Clean up after this mode alone: "+strings.Join(modeNames(), ", ")+".")
	cmd.Flags().DurationVar(&limit, "drain", 0, "Where another proxy serves by now: let connections through IPVS end first, for so long at most. Without it they end at once.")
	return cmd
}

// cleanup goes on after an error, so that as little as possible stays.
func cleanup(ctx context.Context, chosen []mode) error {
	var errs []error
	for _, m := range chosen {
		if err := m.make(ctx, ModeConfig{}).Cleanup(ctx); err != nil {
			errs = append(errs, fmt.Errorf("mode %s: %w", m.name, err))
			continue
		}
		klog.FromContext(ctx).Info("Cleaned up", "mode", m.name)
	}
	return errors.Join(errs...)
}
