package xtables

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// guarded is a runner with chains and jumps of ours, and somebody else's, that is being watched.
type guarded struct {
	*Runner
	doubts chan string
}

var guardedJumps = []Jump{
	{Table: "nat", Chain: "PREROUTING", Target: "SLUICE-SERVICES"},
	{Table: "nat", Chain: "OUTPUT", Target: "SLUICE-SERVICES"},
	{Table: "filter", Chain: "FORWARD", Target: "SLUICE-FORWARD"},
}

func guard(t *testing.T, r *Runner) guarded {
	t.Helper()
	g := guarded{Runner: r, doubts: make(chan string, 100)}
	g.watch(t)
	g.apply(t)
	g.foreignRestore(t, "*nat\n:KUBE-X - [0:0]\n-A KUBE-X -j RETURN\n-A PREROUTING -j KUBE-X\nCOMMIT\n")
	return g
}

// watch watches until the test ends, from a thread in the namespace of the test. What happens after it returned
// is noticed.
func (g guarded) watch(t *testing.T) {
	t.Helper()
	w, err := g.newWatch([]string{"nat", "filter"})
	if err != nil {
		t.Fatal(err)
	}
	g.run(t, w)
}

func (g guarded) run(t *testing.T, w watch) {
	ns := currentNetns(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := ns.join(); err != nil {
			done <- err
			return
		}
		done <- w.Run(ctx, func(reason string) { g.doubts <- reason })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch ended: %v", err)
		}
	})
}

// apply does what the mode does after a doubt: it reads, and writes everything.
func (g guarded) apply(t *testing.T) {
	t.Helper()
	for _, table := range ourTables {
		if _, err := g.Chains(context.Background(), table, "SLUICE-"); err != nil {
			t.Fatal(err)
		}
	}
	mustRestore(t, g, "*nat", ":KUBE-MARK-MASQ - [0:0]", ":SLUICE-SERVICES - [0:0]", ":SLUICE-SVC-1 - [0:0]",
		"-A SLUICE-SERVICES -p tcp -j SLUICE-SVC-1", "-A SLUICE-SERVICES -p udp -j RETURN", "-A SLUICE-SVC-1 -j RETURN", "COMMIT",
		"*filter", ":SLUICE-FORWARD - [0:0]", "-A SLUICE-FORWARD -j RETURN", "COMMIT")
	mustEnsure(t, g, guardedJumps)
}

// next waits for a doubt, for as long as no machine is that slow.
func (g guarded) next(t *testing.T) string {
	t.Helper()
	select {
	case reason := <-g.doubts:
		return reason
	case <-time.After(time.Minute):
		t.Fatal("no doubt came")
		return ""
	}
}

// alone proves that there was no doubt until now: one that is caused now comes first, and alone.
func (g guarded) alone(t *testing.T) {
	t.Helper()
	g.as(t, "-t", "nat", "-A", "SLUICE-SVC-1", "-p", "icmp", "-j", "ACCEPT")
	if reason := g.next(t); !strings.Contains(reason, "SLUICE-SVC-1") {
		t.Errorf("unexpected doubt: %s", reason)
	}
	g.apply(t)
	if len(g.doubts) > 0 {
		t.Errorf("one more doubt: %s", <-g.doubts)
	}
}

func TestWatchNoticesHarm(t *testing.T) {
	tests := []struct {
		name  string
		harm  func(t *testing.T, g guarded)
		nft   string // part of the reason
		other string // the same for the legacy backend; "" if it does not apply
	}{
		{"flush of table nat", func(t *testing.T, g guarded) { g.as(t, "-t", "nat", "-F") }, "table nat", "table nat"},
		{"flush of a chain", func(t *testing.T, g guarded) { g.as(t, "-t", "nat", "-F", "SLUICE-SERVICES") },
			"SLUICE-SERVICES of table nat", "chain SLUICE-SERVICES of table nat has 0 rules instead of 2"},
		{"deletion of a rule", func(t *testing.T, g guarded) { g.as(t, "-t", "nat", "-D", "SLUICE-SVC-1", "1") },
			"deleted a rule in chain SLUICE-SVC-1", "chain SLUICE-SVC-1 of table nat has 0 rules instead of 1"},
		{"insertion of a rule", func(t *testing.T, g guarded) { g.as(t, "-t", "filter", "-I", "SLUICE-FORWARD", "-j", "DROP") },
			"wrote a rule in chain SLUICE-FORWARD of table filter", "SLUICE-FORWARD of table filter has 2 rules instead of 1"},
		{"deletion of a jump", func(t *testing.T, g guarded) { g.as(t, "-t", "nat", "-D", "PREROUTING", "-j", "SLUICE-SERVICES") },
			"deleted a jump to ours in chain PREROUTING of table nat", "jump from PREROUTING of table nat to SLUICE-SERVICES is gone"},
		{"a jump of kube-proxy's before ours", func(t *testing.T, g guarded) {
			g.foreignRestore(t, "*nat\n:KUBE-SERVICES - [0:0]\n-I OUTPUT -j KUBE-SERVICES\nCOMMIT\n")
		}, "put a jump to KUBE-SERVICES first in chain OUTPUT of table nat", "a jump of kube-proxy's stands before ours in chain OUTPUT of table nat"},
		{"flush of a built-in chain", func(t *testing.T, g guarded) { g.as(t, "-F", "FORWARD") },
			"chain FORWARD of table filter", "jump from FORWARD of table filter to SLUICE-FORWARD is gone"},
		{"deletion of a chain", func(t *testing.T, g guarded) {
			g.foreignRestore(t, "*nat\n-D SLUICE-SERVICES 1\n-F SLUICE-SVC-1\n-X SLUICE-SVC-1\nCOMMIT\n")
		}, "table nat", "chain SLUICE-S"},
		{"deletion of the shared chain", func(t *testing.T, g guarded) { g.as(t, "-t", "nat", "-X", "KUBE-MARK-MASQ") },
			"deleted chain KUBE-MARK-MASQ of table nat", "chain KUBE-MARK-MASQ of table nat is gone"},
		{"a table restored without ours", func(t *testing.T, g guarded) {
			g.foreignRestore(t, "*nat\n-F\n-X\nCOMMIT\n")
		}, "table nat", "table nat"},
		{"nft delete table", func(t *testing.T, g guarded) { sh(t, "nft", "delete", "table", g.nftFamily(), "nat") }, "nft (pid ", ""},
		{"nft flush ruleset", func(t *testing.T, _ guarded) { sh(t, "nft", "flush", "ruleset") }, "nft (pid ", ""},
		{"nft flush chain", func(t *testing.T, g guarded) {
			sh(t, "nft", "flush", "chain", g.nftFamily(), "nat", "SLUICE-SERVICES")
		}, "SLUICE-SERVICES of table nat", ""},
	}
	eachKernel(t, func(t *testing.T, r *Runner) {
		g := guard(t, r)
		for _, test := range tests {
			want := test.nft
			if r.Backend() == Legacy {
				want = test.other
			}
			if want == "" {
				continue
			}
			test.harm(t, g)
			if reason := g.next(t); !strings.Contains(reason, want) {
				t.Errorf("%s: reason is %q, not about %q", test.name, reason, want)
			}
			g.apply(t)
		}
		g.alone(t)
	})
}

// What others do just before a write of ours would otherwise pass for a part of it.
func TestWatchNoticesHarmThatAWriteOfOursFollows(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		g := guarded{Runner: r, doubts: make(chan string, 100)}
		w, err := g.newWatch([]string{"nat", "filter"})
		if err != nil {
			t.Fatal(err)
		}
		g.foreignRestore(t, "*nat\n:KUBE-X - [0:0]\n-A KUBE-X -j RETURN\nCOMMIT\n")
		g.apply(t)
		if w, ok := w.(*legacyWatch); ok {
			for _, table := range w.tables {
				if reason := w.probe(context.Background(), table); reason != "" {
					t.Errorf("unexpected doubt: %s", reason)
				}
			}
		}
		g.as(t, "-t", "nat", "-F")
		mustRestore(t, g, "*nat", ":SLUICE-SVC-1 - [0:0]", "-A SLUICE-SVC-1 -p tcp -j RETURN", "-A SLUICE-SVC-1 -j RETURN", "COMMIT")
		g.run(t, w)
		if reason := g.next(t); !strings.Contains(reason, "table nat") {
			t.Errorf("reason is %q, not about table nat", reason)
		}
	})
}

// A write that fails because others hold the lock tells nothing of what these write.
func TestWatchNoticesHarmThatAFailedWriteFollows(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		g := guard(t, r)
		g.as(t, "-t", "nat", "-F", "SLUICE-SERVICES")
		if err := g.Restore(context.Background(), []byte("*nat\n-A SLUICE-NONE -j RETURN\nCOMMIT\n")); err == nil {
			t.Fatal("a rule of a chain that does not exist was accepted")
		}
		if reason := g.next(t); !strings.Contains(reason, "table nat") {
			t.Errorf("reason is %q, not about table nat", reason)
		}
	})
}

func (g guarded) nftFamily() string {
	if g.Family() == proxy.IPv6 {
		return "ip6"
	}
	return "ip"
}

func TestWatchDoesNotMindOurselvesNorOthersInTheirOwnChains(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		g := guard(t, r)
		for range 3 {
			g.apply(t)
			g.as(t, "-t", "nat", "-A", "KUBE-X", "-j", "ACCEPT")
			g.as(t, "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "-j", "KUBE-X")
			g.as(t, "-A", "FORWARD", "-p", "tcp", "-j", "ACCEPT")
			g.foreignRestore(t, "*filter\n:KUBE-ROUTER-FORWARD - [0:0]\n-I FORWARD -j KUBE-ROUTER-FORWARD\nCOMMIT\n"+
				"*nat\n:KUBE-SERVICES - [0:0]\n-A OUTPUT -j KUBE-SERVICES\nCOMMIT\n")
			mustRestore(t, g, "*nat", ":SLUICE-SVC-2 - [0:0]", "-A SLUICE-SVC-2 -j RETURN", "-I SLUICE-SERVICES -j SLUICE-SVC-2", "COMMIT")
			g.foreignRestore(t, "*nat\n:CNI-1 - [0:0]\n-A CNI-1 -j RETURN\n-A KUBE-X -j CNI-1\nCOMMIT\n*filter\n-F INPUT\nCOMMIT\n")
			g.as(t, "-t", "nat", "-D", "KUBE-X", "1")
			mustRestore(t, g, "*nat", "-D SLUICE-SERVICES 1", "-F SLUICE-SVC-2", "-X SLUICE-SVC-2", "COMMIT")
			if err := g.Supported(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.RemoveJumps(context.Background(), "SLUICE-F"); err != nil {
			t.Fatal(err)
		}
		mustEnsure(t, g, guardedJumps)
		g.alone(t)
	})
}

func TestWatchDoesNotMindTheOtherFamilyNorBackend(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		g := guard(t, r)
		for _, backend := range Backends {
			for _, family := range proxy.Families {
				if family == r.Family() && backend == r.Backend() {
					continue
				}
				newRunner(t, family, backend).foreignRestore(t, "*nat\n:SLUICE-SERVICES - [0:0]\n-A SLUICE-SERVICES -j RETURN\n"+
					"COMMIT\n*nat\n-F\n-X\nCOMMIT\n")
			}
		}
		g.alone(t)
	})
}

func TestWatchTellsAFailedWriteFromHarm(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		g := guard(t, r)
		g.alone(t) // what others wrote just before has been looked at
		if err := g.Restore(context.Background(), []byte("*nat\n:SLUICE-SVC-9 - [0:0]\n-A SLUICE-SVC-9 -j NOPE\nCOMMIT\n")); err == nil {
			t.Fatal("nonsense accepted")
		}
		g.apply(t)
		g.alone(t)
	})
}

// large is input whose commit has more messages than a small socket buffer takes.
func large(chain string) string {
	return "*nat\n:" + chain + " - [0:0]\n" + strings.Repeat("-A "+chain+" -p tcp -m tcp --dport 80 -j RETURN\n", 3000) + "COMMIT\n"
}

func TestWatchSurvivesOverflow(t *testing.T) {
	enterNetns(t)
	g := guarded{Runner: newRunner(t, proxy.IPv4, NFT), doubts: make(chan string, 100)}
	w, err := newNFTWatch(g.Runner, []string{"nat", "filter"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetBuffer(4096); err != nil {
		t.Fatal(err)
	}
	// Nobody reads yet, so the buffer overflows for sure.
	g.apply(t)
	mustRestore(t, g, strings.TrimSuffix(large("SLUICE-LARGE"), "\n"))
	g.run(t, w)
	mustRestore(t, g, strings.TrimSuffix(large("SLUICE-LARGE"), "\n"))
	g.alone(t) // nothing but our own commits were lost

	g.foreignRestore(t, large("KUBE-LARGE"))
	g.alone(t) // somebody else's was lost, but did no harm

	g.foreignRestore(t, strings.Replace(large("KUBE-LARGE"), "COMMIT", "-F SLUICE-SVC-1\nCOMMIT", 1))
	if reason := g.next(t); !strings.Contains(reason, "SLUICE-SVC-1") {
		t.Errorf("reason is %q", reason)
	}
	g.apply(t)
	g.alone(t)
}

func TestOverflowIsComparedOnce(t *testing.T) {
	enterNetns(t)
	g := guarded{Runner: newRunner(t, proxy.IPv4, NFT), doubts: make(chan string, 100)}
	w, err := newNFTWatch(g.Runner, []string{"nat", "filter"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetBuffer(4096); err != nil {
		t.Fatal(err)
	}
	g.apply(t)
	for i := range 3 {
		g.foreignRestore(t, large(fmt.Sprintf("KUBE-LARGE-%d", i)))
	}
	g.as(t, "-t", "nat", "-F", "SLUICE-SVC-1")
	g.run(t, w)
	if reason := g.next(t); !strings.Contains(reason, "after a commit by") ||
		!strings.Contains(reason, "chain SLUICE-SVC-1 of table nat has 0 rules instead of 1") {
		t.Errorf("reason is %q", reason)
	}
	g.apply(t)
	g.alone(t)
}

func TestWatchEndsWithItsContext(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Watch(ctx, []string{"nat"}, func(string) {}); err != nil {
			t.Error(err)
		}
	})
}

// Run with -race: the dataplane writes while Watch compares.
func TestWatchRunsBesideWrites(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		g := guard(t, r)
		for i := range 10 {
			g.as(t, "-t", "nat", "-A", "KUBE-X", "-p", "tcp", "-m", "tcp", "--dport", fmt.Sprint(i+1), "-j", "RETURN")
			g.apply(t)
		}
		g.alone(t)
	})
}
