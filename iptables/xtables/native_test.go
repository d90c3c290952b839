package xtables

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// nftFamily is what nft calls the family.
func (r *Runner) nftFamily() (family, address string) {
	if r.family == proxy.IPv6 {
		return "ip6", "2001:db8::1"
	}
	return "ip", "192.0.2.1"
}

// native is where addNative writes.
var native = [][2]string{{"nat", "PREROUTING"}, {"filter", "FORWARD"}}

// addNative puts a rule that iptables cannot express first in chains of which it has none.
func (r *Runner) addNative(t *testing.T) {
	t.Helper()
	for _, n := range native {
		if !r.hasNativeIn(t, n[0], n[1]) {
			r.insertNative(t, n[0], n[1])
		}
	}
}

func (r *Runner) insertNative(t *testing.T, table, chain string) {
	t.Helper()
	family, address := r.nftFamily()
	sh(t, "nft", "insert rule "+family+" "+table+" "+chain+" ct mark set "+family+" saddr map { "+address+" : 5 }")
}

func (r *Runner) hasNative(t *testing.T) bool {
	t.Helper()
	for _, n := range native {
		if !r.hasNativeIn(t, n[0], n[1]) {
			return false
		}
	}
	return true
}

func (r *Runner) hasNativeIn(t *testing.T, table, chain string) bool {
	t.Helper()
	family, _ := r.nftFamily()
	if exec.Command("nft", "list", "chain", family, table, chain).Run() != nil {
		// There is no such chain yet: any rule brings it into being.
		r.as(t, "-t", table, "-A", chain, "-j", "ACCEPT")
		r.as(t, "-t", table, "-D", chain, "-j", "ACCEPT")
	}
	rules, err := exec.Command("nft", "list", "chain", family, table, chain).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(rules), "ct mark set")
}

func eachNFT(t *testing.T, f func(t *testing.T, r *Runner)) {
	for _, family := range proxy.Families {
		t.Run(family.String(), func(t *testing.T) {
			enterNetns(t)
			f(t, newRunner(t, family, NFT))
		})
	}
}

func TestChainsCountsWhereIptablesCannotList(t *testing.T) {
	eachNFT(t, func(t *testing.T, r *Runner) {
		mustRestore(t, r, "*nat", ":SLUICE-A - [0:0]", ":SLUICE-B - [0:0]", ":OTHER - [0:0]",
			"-A SLUICE-A -j SLUICE-B", "-A SLUICE-A -j RETURN", "-A OTHER -j SLUICE-A", "COMMIT",
			"*filter", ":SLUICE-C - [0:0]", "-A SLUICE-C -j RETURN", "COMMIT")
		r.insertNative(t, "nat", "SLUICE-A")
		if _, err := r.tools.save(context.Background(), "nat", "SLUICE-"); err == nil {
			t.Fatal("iptables lists the table: the test proves nothing")
		}
		got, err := r.Chains(context.Background(), "nat", "SLUICE-")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]int{"SLUICE-A": 3, "SLUICE-B": 0}, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// TestNativeContentsAreThoseOfSave compares the two ways to read a table that both can read.
func TestNativeContentsAreThoseOfSave(t *testing.T) {
	ctx := context.Background()
	eachNFT(t, func(t *testing.T, r *Runner) {
		mustRestore(t, r, "*nat", ":SLUICE-A - [0:0]", ":SLUICE-B - [0:0]", ":KUBE-SERVICES - [0:0]", ":CNI - [0:0]",
			"-A SLUICE-A -p tcp -g SLUICE-B", "-A SLUICE-A -m comment --comment SLUICE-B -j RETURN", "-A CNI -g SLUICE-B",
			"-A PREROUTING -j KUBE-SERVICES", "-A PREROUTING -p udp -j SLUICE-A", "-A OUTPUT -j SLUICE-A", "-A OUTPUT -j KUBE-SERVICES",
			"-A POSTROUTING -m comment --comment SLUICE-A -j MASQUERADE", "COMMIT")
		for _, table := range []string{"nat", "mangle"} {
			for _, prefix := range []string{"SLUICE-", "SLUICE-B", "KUBE-"} {
				want, err := r.tools.save(ctx, table, prefix)
				if err != nil {
					t.Fatal(err)
				}
				got, err := nativeContents(ctx, r.family, table, prefix)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(contents{}, jump{})); diff != "" {
					t.Errorf("table %s, prefix %s (-save +native):\n%s", table, prefix, diff)
				}
			}
		}
	})
}

func TestEnsureJumpsTellsNativeRulesApart(t *testing.T) {
	eachNFT(t, func(t *testing.T, r *Runner) {
		mustRestore(t, r, "*filter", ":SLUICE-A - [0:0]", "-A FORWARD -p tcp -j SLUICE-A", "COMMIT")
		r.addNative(t)
		mustEnsure(t, r, []Jump{{Table: "filter", Chain: "FORWARD", Match: []string{"-p", "udp"}, Target: "SLUICE-A"}})
		for protocol, want := range map[string]bool{"tcp": false, "udp": true} {
			if got, err := r.lister.Exists("filter", "FORWARD", "-p", protocol, "-j", "SLUICE-A"); err != nil || got != want {
				t.Errorf("jump for %s is there: %v, error %v", protocol, got, err)
			}
		}
	})
}

func TestDeleteNativeIsAllOrNothing(t *testing.T) {
	ctx := context.Background()
	eachNFT(t, func(t *testing.T, r *Runner) {
		mustRestore(t, r, "*filter", ":SLUICE-A - [0:0]", "-A FORWARD -p tcp -j SLUICE-A", "-A FORWARD -p udp -j SLUICE-A", "COMMIT")
		rules, err := nativeRules(ctx, r.family, "filter", "FORWARD")
		if err != nil || len(rules) != 2 {
			t.Fatalf("rules are %v, error %v", rules, err)
		}
		gone := rules[1]
		gone.handle += 1000
		if err := r.deleteNative(ctx, []nativeRule{rules[0], gone}); err == nil {
			t.Error("a rule that is not there was deleted")
		}
		if left, err := nativeRules(ctx, r.family, "filter", "FORWARD"); err != nil || len(left) != 2 {
			t.Errorf("left: %v, error %v", left, err)
		}
	})
}

// TestWatchKnowsOurNativeDeletions must hold after an overflow, too, when the ledger is compared.
func TestWatchKnowsOurNativeDeletions(t *testing.T) {
	eachNFT(t, func(t *testing.T, r *Runner) {
		g := guard(t, r)
		r.addNative(t)
		r.as(t, "-t", "nat", "-A", "PREROUTING", "-j", "SLUICE-SERVICES")
		mustEnsure(t, g, guardedJumps)
		g.alone(t)
		if err := g.RemoveJumps(context.Background(), "SLUICE-FORWARD"); err != nil {
			t.Fatal(err)
		}
		for _, table := range ourTables {
			if reason, err := r.verify(context.Background(), table); err != nil || reason != "" {
				t.Errorf("the ledger differs: %s, error %v", reason, err)
			}
		}
		if g := (nfwatch.Generation{Port: 1, Process: nfwatch.OwnName()}); r.children.Made(g) {
			t.Errorf("%v passes for ours", g)
		}
	})
}

func TestSurveyStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	err := undisturbed(ctx, func() error {
		cancel()
		return unix.EAGAIN
	})
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("error is %v", err)
	}
	if err := undisturbed(ctx, func() error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestSurveyIsRepeatedAfterACommit(t *testing.T) {
	enterNetns(t)
	looks := 0
	err := undisturbed(context.Background(), func() error {
		if looks++; looks == 1 {
			sh(t, "nft", "add table ip other")
		}
		return nil
	})
	if err != nil || looks != 2 {
		t.Errorf("%d looks, error %v", looks, err)
	}
}
