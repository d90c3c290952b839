package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/proxy/metrics"
)

// released is the version of a release, set by the linker.
var released string

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeVersion(cmd.OutOrStdout())
		},
	}
}

func writeVersion(w io.Writer) error {
	b := build()
	_, err := fmt.Fprintf(w, "sluice %s\ncommit %s (%s), %s\n%s %s/%s\n",
		b.GitVersion, b.GitCommit, b.GitTreeState, b.BuildDate, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

func version() string { return build().GitVersion }

// build is what the linker and the Go toolchain know of this binary.
func build() metrics.Build {
	b := metrics.Build{GitVersion: released, GitCommit: "unknown", GitTreeState: "unknown", BuildDate: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		if b.GitVersion == "" {
			b.GitVersion = info.Main.Version
		}
		readSettings(&b, info.Settings)
	}
	if b.GitVersion == "" {
		b.GitVersion = "(devel)"
	}
	if parts := strings.SplitN(strings.TrimPrefix(b.GitVersion, "v"), ".", 3); len(parts) == 3 {
		b.Major, b.Minor = parts[0], parts[1]
	}
	return b
}

func readSettings(b *metrics.Build, settings []debug.BuildSetting) {
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			b.GitCommit = s.Value
		case "vcs.time":
			b.BuildDate = s.Value
		case "vcs.modified":
			b.GitTreeState = map[string]string{"false": "clean", "true": "dirty"}[s.Value]
		}
	}
}
