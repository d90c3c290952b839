package xtables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// read lists a table of which it is known that listing does no harm.
func (t tools) read(ctx context.Context, family proxy.Family, table, prefix string) (contents, error) {
	found, err := t.save(ctx, table, prefix)
	if err != nil {
		err = fmt.Errorf("%s -t %s: %w", t.saver, table, err)
	}
	if !errors.Is(err, errIncompatible) {
		return found, err
	}
	if found, err = nativeContents(ctx, family, table, prefix); err != nil {
		return contents{}, fmt.Errorf("dump table %s: %w", table, err)
	}
	return found, nil
}

// save lists a table.
func (t tools) save(ctx context.Context, table, prefix string) (contents, error) {
	found := newContents()
	err := t.stream(ctx, table, func(stdout io.Reader) (err error) {
		found, err = parseSave(stdout, prefix)
		return err
	})
	if err != nil {
		return contents{}, err
	}
	return found, nil
}

// stream lists a table as it is parsed: a large one is never held whole.
func (t tools) stream(ctx context.Context, table string, parse func(io.Reader) error, more ...string) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, t.saver, append([]string{"-t", table}, more...)...)
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	parseErr := parse(stdout)
	if parseErr != nil {
		_ = cmd.Process.Kill() // else it waits for a reader of the rest
	}
	err = wait(cmd)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case parseErr != nil:
		return parseErr
	case err != nil:
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// holds tells whether it is worth listing a table. Listing one of the legacy backend creates it, and its
// hooks, where there was none.
func (t tools) holds(family proxy.Family, table string) (bool, error) {
	if t.backend != Legacy {
		return true, nil
	}
	// Of the thread, not of the process, which may be in another network namespace.
	path := "/proc/thread-self/net/ip_tables_names"
	if family == proxy.IPv6 {
		path = "/proc/thread-self/net/ip6_tables_names"
	}
	names, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the kernel has never heard of the legacy backend
	}
	return slices.Contains(strings.Fields(string(names)), table), err
}
