package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
)

// ListAll writes tables one after the other. What cannot be listed does not keep the others from it.
func ListAll(ctx context.Context, tables []*Runner, w io.Writer) error {
	var errs []error
	for _, r := range tables {
		errs = append(errs, r.List(ctx, w))
	}
	return errors.Join(errs...)
}

// List writes what the table holds, for people: chains and declarations in the words of nft, and then elements, a line each. If there is
// no table it writes nothing.
func (r *Runner) List(ctx context.Context, w io.Writer) error {
	if found, err := r.Exists(); err != nil || !found {
		return err
	}
	// Listing elements takes nft many times the memory that reading them takes.
	if err := r.listTerse(ctx, w); err != nil {
		return fmt.Errorf("list %v: %w", r, err)
	}
	state, err := r.Read(ctx)
	if err != nil || state == nil {
		return err
	}
	for _, set := range slices.Sorted(maps.Keys(state.Elements)) {
		for _, e := range state.Elements[set] {
			text := fmt.Sprintf("element %s %s %s { %s", Family(r.family), r.table, set, e.Key)
			if e.Value != "" {
				text += " : " + e.Value
			}
			if _, err := fmt.Fprintf(w, "%s } # %s\n", text, e.Comment); err != nil {
				return err
			}
		}
	}
	return nil
}

// listTerse has nft list everything but elements.
func (r *Runner) listTerse(ctx context.Context, w io.Writer) error {
	path, err := exec.LookPath("nft")
	if err != nil {
		return fmt.Errorf("find nft: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--terse", "list", "table", string(Family(r.family)), r.table)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run nft: %w: %s", errors.Join(ctx.Err(), err), shorten(stderr.String()))
	}
	return nil
}
