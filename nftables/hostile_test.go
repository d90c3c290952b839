package nftables

import (
	"context"
	"errors"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// kernelWith is the table in the kernel, with somebody between it and us.
type kernelWith struct {
	nft.Interface
	run func(tx *knftables.Transaction, run func() error) error
}

func (k *kernelWith) Run(ctx context.Context, tx *knftables.Transaction) error {
	return k.run(tx, func() error { return k.Interface.Run(ctx, tx) })
}

// dataplaneWith is a new process with somebody between it and the kernel.
func dataplaneWith(f inFamily, run func(tx *knftables.Transaction, run func() error) error) *dataplane {
	return newDataplane(Config{DropInvalid: true}, proxy.Family(f), &kernelWith{tableOf(f), run})
}

// Whatever the kernel refuses, nobody else has to wait for it, and it is tried again.
func TestKernelServicesThatAreRefusedAreSetAsideAlone(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		bad := map[string]bool{"ns/s7:p": true, "ns/s100:p": true, "ns/s101:p": true}
		refusing := true
		d := dataplaneWith(f, func(tx *knftables.Transaction, run func() error) error {
			for name := range bad {
				if refusing && strings.Contains(tx.String(), `"`+name+`"`) {
					return &nft.RefusedError{Output: "Could not process rule: Operation not supported"}
				}
			}
			return run()
		})
		now := time.Now()
		d.now = func() time.Time { return now }
		all := crowd(200)
		for _, state := range []struct {
			when string
			want *proxy.Snapshot
		}{
			{"at first", snapshot(f.node(), all...)},
			{"when others change", snapshot(f.node(), append(slices.Clip(all), service{name: "new", clusterIP: "10.96.9.9", backends: backendsFrom(1, 3)})...)},
		} {
			report, err := d.Apply(t.Context(), state.want)
			if err != nil {
				t.Fatalf("%s: %v", state.when, err)
			}
			if len(report.SetAside) != len(bad) {
				t.Errorf("%s: set aside: %v", state.when, report.SetAside)
			}
			without := map[proxy.ServicePortName]*proxy.ServicePort{}
			for name := range state.want.All() {
				if bad[name.String()] {
					without[name] = nil
				}
			}
			d.now = func() time.Time { return now.Add(2 * idleTime / 3) } // not time for another try
			wantFresh(t, f, state.want.Next(state.want.Node(), without))
		}
		refusing = false
		d.now = func() time.Time { return now.Add(2 * shelf.RetryAfter) }
		want := snapshot(f.node(), all...)
		for range bad {
			mustApplyAnyhow(t, d, want)
			now = now.Add(2 * shelf.RetryAfter)
		}
		d.now = func() time.Time { return now.Add(2 * idleTime) }
		mustApply(t, d, want)
		wantFresh(t, f, want)
	})
}

// mustApplyAnyhow applies what is not set aside.
func mustApplyAnyhow(t *testing.T, d *dataplane, want *proxy.Snapshot) {
	t.Helper()
	if _, err := d.Apply(t.Context(), want); err != nil {
		t.Fatal(err)
	}
}

// A program that replaces all rules when the node starts may do so while our table is being filled, or between the moments when
// it is read and written. No Service is to blame for that.
func TestKernelNobodyIsSetAsideBecauseOfAFlush(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		want := snapshot(f.node(), crowd(150)...)
		for _, first := range []bool{true, false} {
			for at := range 4 {
				if err := tableOf(f).Remove(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !first {
					mustApply(t, newTestDataplane(f), snapshot(f.node(), crowd(120)...))
				}
				runs := 0
				d := dataplaneWith(f, func(_ *knftables.Transaction, run func() error) error {
					if runs++; runs == at+1 {
						runNFT(t, "flush", "ruleset")
					}
					return run()
				})
				d.batch = 200
				mustApply(t, d, want)
				if runs <= at {
					t.Fatalf("%d transactions", runs)
				}
				wantFresh(t, f, want)
			}
		}
	})
}

// What others put into the table, and what they make of it, never keeps it from becoming right again.
func TestKernelForeignThingsThatCannotBeMendedOneByOne(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		want := snapshot(f.node(), crowd(30)...)
		table := string(nft.Family(proxy.Family(f))) + " " + Table
		for name, command := range map[string]string{
			"an element for all other keys": "add element " + table + " frontends { * : drop }",
			"another protocol":              "add element " + table + " services { " + f.addr("10.96.9.1").String() + " . icmp . 0 : drop }",
			"a verdict that we have not":    "add element " + table + " services { " + f.addr("10.96.9.1").String() + " . tcp . 80 : accept }",
			"a verdict in place of ours": "delete element " + table + " frontends { " + f.addr("10.96.1.1").String() + " . tcp . 80 }; " +
				"add element " + table + " frontends { " + f.addr("10.96.1.1").String() + " . tcp . 80 : return }",
			"a range of addresses": "add element " + table + " allowed { " + f.addr("10.96.9.1").String() + " . tcp . 80 . " + f.addr("10.0.0.1").String() + "-" + f.addr("10.0.0.9").String() + " }",
			"a range of ports":     "add element " + table + " allowed { " + f.addr("10.96.9.1").String() + " . tcp . 80-90 . " + f.addr("10.0.0.1").String() + " }",
			"chains in a circle of no use": "add chain " + table + " a; add chain " + table + " b; add chain " + table + " c; " +
				"add rule " + table + " c jump a; add rule " + table + " b jump c",
			"a policy":                            "chain " + table + " filter-input { policy drop; }",
			"a table asleep":                      "table " + table + " { flags dormant; }",
			"a rule of ours that leads to theirs": "add chain " + table + " a; insert rule " + table + " nat-prerouting jump a",
			"an element that leads to theirs":     "add chain " + table + " a; add element " + table + " services { " + f.addr("10.96.9.1").String() + " . tcp . 80 : jump a }",
		} {
			for _, restart := range []bool{false, true} {
				d := newTestDataplane(f)
				mustApply(t, d, want)
				runNFT(t, command)
				if restart {
					d = newTestDataplane(f)
				} else {
					d.Resync("")
				}
				if _, err := d.Apply(t.Context(), want); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				d.now = func() time.Time { return time.Now().Add(2 * idleTime) }
				if _, err := d.Apply(t.Context(), want); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if t.Failed() {
					t.Fatalf("%s (restart %v)", name, restart)
				}
				wantFresh(t, f, want)
				if t.Failed() {
					t.Fatalf("%s (restart %v)", name, restart)
				}
			}
		}
	})
}

// A kernel that fails now and then, before or after it has done what it was asked to, does no lasting harm.
func TestKernelFailuresDoNoLastingHarm(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		random := rand.New(rand.NewPCG(5, uint64(f)))
		failing := true
		run := func(_ *knftables.Transaction, run func() error) error {
			if !failing {
				return run()
			}
			switch random.IntN(20) {
			case 0:
				return errors.New("killed before it began")
			case 1:
				_ = run()
				return errors.New("killed when it was done")
			case 2:
				return &nft.RefusedError{Resource: true, Output: "Cannot allocate memory"}
			case 3:
				return &nft.RefusedError{Output: "Invalid argument"}
			case 4:
				return &nft.RefusedError{Missing: true, Output: "No such file or directory"}
			}
			return run()
		}
		all := crowd(60)
		now := time.Now()
		d := dataplaneWith(f, run)
		for i := range 60 {
			for range 5 {
				i := random.IntN(len(all))
				all[i].backends = mutate(random, all[i].backends)
				if random.IntN(4) == 0 {
					all[i].affinity = time.Duration(random.IntN(3)) * time.Minute
				}
			}
			if random.IntN(5) == 0 {
				d = dataplaneWith(f, run)
			}
			d.batch = 1 + random.IntN(300)
			d.now = func() time.Time { return now }
			now = now.Add(20 * time.Second)
			failing = i < 59
			_, _ = d.Apply(t.Context(), snapshot(f.node(), all...))
		}
		want := snapshot(f.node(), all...)
		for range 70 { // one after the other leaves the shelf
			now = now.Add(shelf.RetryAfter)
			mustApplyAnyhow(t, d, want)
		}
		mustApply(t, d, want)
		wantFresh(t, f, want)
	})
}

// Two processes that serve the same in one table come to terms, however their changes meet.
func TestKernelTwoAtOnceComeToTerms(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		random := rand.New(rand.NewPCG(6, uint64(f)))
		both := []*dataplane{newTestDataplane(f), newTestDataplane(f)}
		all := crowd(40)
		for range 40 {
			for range 4 {
				i := random.IntN(len(all))
				all[i].backends = mutate(random, all[i].backends)
			}
			want := snapshot(f.node(), all...)
			first := random.IntN(2)
			for _, d := range []*dataplane{both[first], both[1-first]} {
				if random.IntN(3) > 0 {
					mustApply(t, d, want)
				}
			}
			for range 2 { // each hears of what the other did
				for _, d := range both {
					d.Resync("the other one")
					mustApply(t, d, want)
				}
			}
			before := generation(t)
			for _, d := range both {
				d.Resync("nothing")
				mustApply(t, d, want)
			}
			if generation(t) != before {
				t.Fatal("they go on mending what the other did")
			}
		}
		for _, d := range both {
			d.now = func() time.Time { return time.Now().Add(2 * idleTime) }
			mustApply(t, d, snapshot(f.node(), all...))
		}
		wantFresh(t, f, snapshot(f.node(), all...))
	})
}

// The table can be read although others commit to theirs all the time.
func TestKernelTableIsReadWhileOthersCommit(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		want := snapshot(f.node(), crowd(1000)...)
		mustApply(t, newTestDataplane(f), want)
		runNFT(t, "add table inet other")
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for range 2 {
			// It commits in the namespace of this thread.
			others := exec.CommandContext(ctx, "sh", "-c", "while nft 'add chain inet other c; delete chain inet other c'; do :; done")
			if err := others.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { stop(); _ = others.Wait() }()
		}
		before := generation(t)
		for range 5 {
			if n := writes(mustApply(t, newTestDataplane(f), want)); n != 0 {
				t.Errorf("%d writes", n)
			}
		}
		if n := generation(t) - before; n < 20 {
			t.Errorf("only %d commits meanwhile: the test shows nothing", n)
		}
	})
}
