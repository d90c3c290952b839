package iptables

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// TestKernelWithoutTheMatch hides the match nfacct from iptables, as an image may that was made small: the mode works, uncounted.
func TestKernelWithoutTheMatch(t *testing.T) {
	installed, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil || len(installed) == 0 {
		t.Fatalf("no extensions of iptables in /usr/lib: %v", err)
	}
	some := t.TempDir()
	for _, file := range installed {
		if filepath.Base(file) != "libxt_nfacct.so" {
			if err := os.Symlink(file, filepath.Join(some, filepath.Base(file))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, backend := range xtables.Backends {
		t.Run(string(backend), func(t *testing.T) {
			inNamespace(t, func() {
				cfg := Config{Backend: backend, DropInvalid: true}
				t.Setenv("XTABLES_LIBDIR", some)
				for range 2 {
					prepareAndApply(t, NewMode(cfg).(mode), false)
					wantObjects(t, false)
				}
				if err := os.Unsetenv("XTABLES_LIBDIR"); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					prepareAndApply(t, NewMode(cfg).(mode), true)
					wantObjects(t, true)
				}
			})
		})
	}
}

// prepareAndApply starts the mode in all families.
func prepareAndApply(t *testing.T, m mode, counts bool) {
	t.Helper()
	if err := m.Prepare(t.Context(), proxy.Families[:]); err != nil {
		t.Fatal(err)
	}
	for _, f := range proxy.Families {
		d, err := m.New(f)
		if err != nil {
			t.Fatal(err)
		}
		if Counts(d) != counts {
			t.Errorf("%v: counts: %v, want %v", f, !counts, counts)
		}
		snap := snapshot(family(f).node(), exposed("cluster"))
		mustApply(t, d.(*dataplane), snap)
		// Somebody who compares without having prepared anything comes to the same rules.
		unprepared, err := NewMode(m.cfg).New(f)
		if err != nil {
			t.Fatal(err)
		}
		found, err := unprepared.(proxy.Inspector).Inspect(t.Context(), snap)
		if err != nil || len(found) > 0 {
			t.Errorf("%v: the kernel differs: %v, %v", f, found, err)
		}
	}
}

func wantObjects(t *testing.T, want bool) {
	t.Helper()
	found, err := objects.There()
	if err != nil || len(found) > 0 != want {
		t.Errorf("there are the objects %q, want some: %v, %v", found, want, err)
	}
}
