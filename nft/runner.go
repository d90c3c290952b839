package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// ErrNotFound says that nft is not installed.
var ErrNotFound = exec.ErrNotFound

// Runner is the table in the kernel, in the network namespace of the calling thread.
type Runner struct {
	family   proxy.Family
	table    string
	schema   *Schema
	factory  *knftables.Fake // makes transactions, and nothing else
	children nfwatch.Children
	forms    *Forms
}

// NewRunner touches nothing.
func NewRunner(f proxy.Family, schema *Schema) *Runner { return newRunner(f, schema.Table, schema) }

// NewProbe is a Runner with a table of another name, in which no packet ever finds anything, to try things out.
func NewProbe(f proxy.Family, schema *Schema) *Runner {
	return newRunner(f, schema.Table+"-probe", schema)
}

func newRunner(f proxy.Family, table string, schema *Schema) *Runner {
	return &Runner{
		family:   f,
		table:    table,
		schema:   schema,
		factory:  knftables.NewFake(Family(f), table),
		children: nfwatch.Children{Program: func(name string) bool { return name == "nft" }},
		forms:    &Forms{},
	}
}

// NewTransaction implements Interface.
func (r *Runner) NewTransaction() *knftables.Transaction { return r.factory.NewTransaction() }

// Run implements Interface.
func (r *Runner) Run(ctx context.Context, tx *knftables.Transaction) error {
	input, apart := cutDynsets(r.family, tx.String())
	err := r.run(ctx, input, "-f", "-")
	if err == nil && len(apart) > 0 {
		err = r.appendDynsets(apart)
	}
	if strings.Contains(input, "add rule ") || len(apart) > 0 {
		r.learn()
	}
	return err
}

// Check tells whether the kernel would take a transaction, and changes nothing.
func (r *Runner) Check(ctx context.Context, tx *knftables.Transaction) error {
	input, _ := cutDynsets(r.family, tx.String())
	return r.run(ctx, input, "--check", "-f", "-")
}

// Remove deletes the table, if it is there.
func (r *Runner) Remove(ctx context.Context) error {
	tx := r.NewTransaction()
	tx.Delete(&knftables.Table{})
	err := r.Run(ctx, tx)
	if refused, ok := errors.AsType[*RefusedError](err); ok && refused.Missing || errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func (r *Runner) run(ctx context.Context, input string, args ...string) error {
	if _, bad, ok := strings.Cut(input, "# ERROR: "); ok {
		return &RefusedError{Output: bad}
	}
	path, err := exec.LookPath("nft")
	if err != nil {
		return fmt.Errorf("find nft: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(input)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := r.children.Start(cmd); err != nil {
		return fmt.Errorf("run nft: %w", err)
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() && ctx.Err() == nil {
		return refusedError(output.String())
	}
	if err != nil {
		return fmt.Errorf("run nft: %w: %s", errors.Join(ctx.Err(), err), shorten(output.String()))
	}
	return nil
}

var blamed = regexp.MustCompile(`(?m)^[^\s:]+:\d+:\d+-\d+: Error: (.*)$`)

func refusedError(output string) *RefusedError {
	e := &RefusedError{Output: shorten(output)}
	about := output
	if m := blamed.FindStringSubmatch(output); m != nil {
		about = m[1]
	}
	e.Missing = strings.Contains(about, "No such file or directory")
	e.Exists = strings.Contains(about, "File exists")
	for _, text := range []string{"Cannot allocate memory", "Device or resource busy", "No buffer space", "Resource temporarily", "Interrupted system call"} {
		e.Resource = e.Resource || strings.Contains(about, text)
	}
	return e
}

// shorten is the beginning of what nft wrote: it repeats every line that it blames.
func shorten(output string) string {
	const most = 400
	output = strings.TrimSpace(output)
	if len(output) > most {
		return output[:most] + "…"
	}
	return output
}
