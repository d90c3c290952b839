package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
