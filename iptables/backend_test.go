package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// TestKernelForgetsTheOtherBackend changes the backend from one start to the next. What the first wrote would otherwise
// send packets to its endpoints for ever.
func TestKernelForgetsTheOtherBackend(t *testing.T) {
	for _, change := range [][2]xtables.Backend{{xtables.NFT, xtables.Legacy}, {xtables.Legacy, xtables.NFT}} {
		for _, f := range []family{v4, family(proxy.IPv6)} {
			t.Run(fmt.Sprintf("%s to %s/%v", change[0], change[1], proxy.Family(f)), func(t *testing.T) {
				inNamespace(t, func() {
					snap := snapshot(f.node(), exposed("externalLocal"))
					for _, backend := range change {
						d, err := NewMode(Config{Backend: backend}).New(proxy.Family(f))
						if err != nil {
							t.Fatal(err)
						}
						mustApply(t, d.(*dataplane), snap)
					}
					for i, want := range []bool{false, true} {
						ipt, err := xtables.New(proxy.Family(f), xtables.Config{Backend: change[i]})
						if err != nil {
							t.Fatal(err)
						}
						left := held(t, ipt, f)
						if got := len(left) > 0; got != want {
							t.Errorf("backend %s holds %v, want anything: %t", change[i], slices.Sorted(maps.Keys(left)), want)
						}
					}
				})
			})
		}
	}
}

func TestOtherBackendIsLeftOnceServed(t *testing.T) {
	k := newKernel(proxy.IPv4)
	d := newDataplane(Config{}, k)
	calls := 0
	d.leave = func(context.Context) error {
		if calls++; k.Dump() == "" {
			t.Error("the other backend was left before this one served")
		}
		if calls == 1 {
			return errors.New("locked")
		}
		return nil
	}
	k.FailEvery = 1
	if _, err := d.Apply(t.Context(), snapshot(v4.node(), numbered(1, remotePod))); err == nil || calls != 0 {
		t.Errorf("a first Apply that failed: error %v, left %d times; want some and none", err, calls)
	}
	k.FailEvery = 0
	for i := range 4 {
		mustApply(t, d, snapshot(v4.node(), numbered(i, remotePod)))
	}
	if calls != 2 {
		t.Errorf("left %d times, want a failure and a success", calls)
	}
}

// TestKernelWithoutNFTables has programs of backend nft that say what they say where the kernel has no nf_tables.
func TestKernelWithoutNFTables(t *testing.T) {
	programs := t.TempDir()
	for _, f := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			const script = "#!/bin/sh\ncase \"$*\" in *--version*) echo 'iptables v1.8.9 (nf_tables)'; exit 0;; esac\n" +
				"echo \"$0 v1.8.9 (nf_tables): Could not fetch rule set generation id: Invalid argument\" >&2\nexit 4\n"
			if err := os.WriteFile(filepath.Join(programs, f+"-nft"+suffix), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", programs+string(os.PathListSeparator)+os.Getenv("PATH"))
	inNamespace(t, func() {
		m := NewMode(Config{})
		for _, f := range proxy.Families {
			if err := m.Supported(t.Context(), f); err != nil {
				t.Fatalf("%v: %v", f, err)
			}
			made, err := m.New(f)
			if err != nil {
				t.Fatal(err)
			}
			d := made.(*dataplane)
			mustApply(t, d, snapshot(family(f).node(), numbered(1, remotePod)))
			if d.leave != nil {
				t.Errorf("%v: the other backend is still to be left", f)
			}
		}
		if err := m.Cleanup(t.Context()); err != nil {
			t.Errorf("clean up: %v", err)
		}
		if err := m.Cleanup(t.Context()); err != nil {
			t.Errorf("clean up where nothing is left: %v", err)
		}
	})
}
