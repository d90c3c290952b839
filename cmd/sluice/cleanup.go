package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
)

func newCleanupCommand() *cobra.Command {
	var only string
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything that Sluice has put into this node's kernel",
		Long: "Remove everything that Sluice has put into this node's kernel, of all modes and both IP families.\n" +
			"Services are not served any more then. Kernel parameters stay as they are.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			chosen := modes
			if only != "" && only != auto {
				m, err := findMode(only)
				if err != nil {
					return fmt.Errorf("--mode: %w", err)
				}
				chosen = []mode{m}
			}
			return cleanup(cmd.Context(), chosen)
		},
	}
	cmd.Flags().StringVar(&only, "mode", "", "Clean up after this mode alone: "+modeNames()+".")
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
