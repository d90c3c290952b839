package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/bundle"
	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/audit"
	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/record"
)

// recordFile is the piece of a bundle that says what is served, and why.
const recordFile = "record.jsonl"

// diffFile is the piece that says how the kernel differed.
const diffFile = "diff.json"

// about is the first piece of a bundle.
const about = `What a Sluice did on a node, for support. There are no Secrets in it: Sluice reads none, and neither environment nor kubeconfig
is packed. There are names and addresses of Services, endpoints and the node.

record.jsonl   what was served at that time, and what the cluster says of it; sluice explain --bundle reads it
diff.json      how the kernel differed from what was served; sluice diff --bundle reads it
syncs.json     what was done lately, and what was known of the kernel's state
metrics.txt    the metrics
config.json    the configuration in force
version.txt    versions of this program and of the kernel
check.txt      what sluice check says
conntrack.txt  counters of connection tracking
kernel-*.txt   what each mode had in the kernel
errors.txt     what could not be had, if anything
`

func newBundleCommand(root *config.Options) *cobra.Command {
	return &cobra.Command{
		Use:   "bundle [FILE]",
		Short: "Pack what support needs to know of this node into one file",
		Long: "Pack what support needs to know of this node into one file, a tar.gz: what is served and why, what is in the\n" +
			"kernel, what was done lately, metrics, configuration, versions and counters. There are names and addresses of\n" +
			"Services in it, but no Secret, no kubeconfig and no environment. FILE - is the standard output. What a Sluice that\n" +
			"does not run cannot tell is left out, and that is said.",
		Args:          cobra.MaximumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := root.StartLogging(); err != nil {
				return err
			}
			file := strings.Join(args, "")
			if file == "" {
				file = fmt.Sprintf("sluice-%s.tar.gz", time.Now().UTC().Format("20060102-150405"))
			}
			return pack(cmd.Context(), file, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}

// pack writes a bundle into a file, or to stdout if that is called -.
func pack(ctx context.Context, file string, stdout, stderr io.Writer) error {
	if file == "-" {
		return packInto(ctx, stdout, stderr)
	}
	// It says a lot about a cluster, so nobody else is to read it.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(packInto(ctx, f, stderr), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file, err), os.Remove(file))
	}
	fmt.Fprintf(stderr, "wrote %s\n", file)
	return nil
}

func packInto(ctx context.Context, out, stderr io.Writer) error {
	missing, err := bundle.Write(ctx, out, "sluice-bundle", pieces(), bundle.Usual)
	for _, m := range missing {
		fmt.Fprintf(stderr, "left out: %v\n", m)
	}
	return err
}

// pieces are all files of a bundle.
func pieces() []bundle.Piece {
	all := []bundle.Piece{bundle.Text("README.txt", about)}
	for _, asked := range [][2]string{{recordFile, "/record"}, {diffFile, "/diff"}, {"syncs.json", "/syncs"}, {"metrics.txt", "/metrics"}, {"config.json", "/config"}} {
		all = append(all, bundle.Piece{Name: asked[0], Write: func(ctx context.Context, w io.Writer) error {
			return askProxy(ctx, asked[1], nil, w)
		}})
	}
	all = append(all,
		bundle.Piece{Name: "version.txt", Write: writeVersions},
		bundle.Piece{Name: "check.txt", Write: writeCheck},
		bundle.Piece{Name: "conntrack.txt", Write: writeCounters},
	)
	for _, m := range modes {
		all = append(all, bundle.Piece{Name: "kernel-" + m.name + ".txt", Write: func(ctx context.Context, w io.Writer) error {
			lister, ok := m.make(ctx, ModeConfig{}).(proxy.Lister)
			if !ok {
				return errors.New("the mode cannot list what it has")
			}
			return lister.List(ctx, w)
		}})
	}
	return all
}

func writeVersions(_ context.Context, w io.Writer) error {
	return errors.Join(writeVersion(w), copyFiles(w, "/proc/version", "/etc/os-release"))
}

func writeCheck(ctx context.Context, w io.Writer) error {
	options, _ := borrow(checked)
	findings, err := check(ctx, options, usualNodePorts)
	if err != nil {
		return err
	}
	return writeText(w, findings)
}

// writeCounters has the files of the thread's network namespace, which is that of the process.
func writeCounters(_ context.Context, w io.Writer) error {
	const params = "/proc/sys/net/netfilter/nf_conntrack_"
	return copyFiles(w, params+"count", params+"max", params+"buckets", "/proc/thread-self/net/stat/nf_conntrack")
}

// copyFiles writes files one after the other, each below its name.
func copyFiles(w io.Writer, names ...string) error {
	var errs []error
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil {
			_, err = fmt.Fprintf(w, "%s:\n%s\n", name, text)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// comparedInBundle is what a comparison found when a bundle was made.
func comparedInBundle(file string) (report audit.Report, err error) {
	f, err := os.Open(file)
	if err != nil {
		return report, err
	}
	defer func() { _ = f.Close() }()
	if err := bundle.Find(f, diffFile, func(from io.Reader) error {
		err := json.NewDecoder(from).Decode(&report)
		if errors.Is(err, io.EOF) {
			return errors.New("no proxy could tell when it was made: see " + bundle.Errors + " in it")
		}
		return err
	}); err != nil {
		return report, fmt.Errorf("%s: %w", file, err)
	}
	return report, nil
}

// viewsOfBundle are what was served where and when a bundle was made.
func viewsOfBundle(file string) (views, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var r record.Record
	if err := bundle.Find(f, recordFile, func(from io.Reader) (err error) { r, err = record.Read(from); return err }); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return func(f proxy.Family) *explain.View {
		family := r.Of(f)
		if family == nil {
			return nil
		}
		return &explain.View{Snapshot: family.Snapshot, SetAside: family.SetAside, Relay: family.Relay, Input: r.Input}
	}, nil
}
