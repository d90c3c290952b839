package xtables

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// enterNetns gives the test a network namespace of its own. The thread stays locked, so it dies with
// the goroutine of the test, and the namespace with it.
func enterNetns(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("new network namespace (needs root): %v", err)
	}
}

// eachKernel runs f in an empty namespace for either family and backend.
func eachKernel(t *testing.T, f func(t *testing.T, r *Runner)) {
	for _, backend := range Backends {
		for _, family := range proxy.Families {
			t.Run(string(backend)+"/"+family.String(), func(t *testing.T) {
				enterNetns(t)
				f(t, newRunner(t, family, backend))
			})
		}
	}
}

func newRunner(t *testing.T, family proxy.Family, backend Backend) *Runner {
	t.Helper()
	r, err := New(family, Config{Backend: backend, ProbeInterval: 5 * time.Millisecond, Wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// as is what somebody else does with the family's iptables.
func (r *Runner) as(t *testing.T, args ...string) {
	t.Helper()
	sh(t, append([]string{r.tools.main, "-w", "60"}, args...)...)
}

func sh(t *testing.T, args ...string) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
}

// foreignRestore is what somebody else does with iptables-restore.
func (r *Runner) foreignRestore(t *testing.T, input string) {
	t.Helper()
	cmd := exec.Command(r.tools.restore, "--noflush", "-w", "60")
	cmd.Stdin = strings.NewReader(input)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
}

func mustRestore(t *testing.T, i Interface, lines ...string) {
	t.Helper()
	if err := i.Restore(context.Background(), []byte(strings.Join(lines, "\n")+"\n")); err != nil {
		t.Fatal(err)
	}
}

// netns is a network namespace that a thread may join.
type netns struct{ file *os.File }

func currentNetns(t *testing.T) netns {
	t.Helper()
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return netns{file}
}

// join moves the calling thread.
func (ns netns) join() error { return unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET) }
