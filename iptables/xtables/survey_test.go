package xtables

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shop is a table with chains of somebody who is gone, all of whose names begin with SHOP-, and with what others have.
const shop = `*nat
:SHOP-ENTRY - [0:0]
:SHOP-DOOR - [0:0]
:SHOP-COUNTER - [0:0]
:OTHERS - [0:0]
-A PREROUTING -m comment --comment "the way in" -j SHOP-ENTRY
-A PREROUTING -p tcp -m tcp --dport 22 -j ACCEPT
-A OUTPUT -j SHOP-ENTRY
-A OUTPUT -j OTHERS
-A SHOP-ENTRY -j SHOP-DOOR
-A SHOP-DOOR -m comment --comment "-j OTHERS" -j SHOP-COUNTER
-A SHOP-DOOR -g SHOP-COUNTER
-A OTHERS -j SHOP-COUNTER
-A SHOP-COUNTER -j RETURN
COMMIT
`

func isShop(chain string) bool { return strings.HasPrefix(chain, "SHOP-") }

// rulesAndChains is a table without what iptables makes by itself.
func (r *Runner) rulesAndChains(t *testing.T, table string) []string {
	t.Helper()
	out, err := exec.Command(r.tools.saver, "-t", table).Output()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":") && strings.Contains(line, " - ") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestKernelRemoveChainsRemovesWhatTracesNames(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		ctx := context.Background()
		if s, err := r.Survey(ctx, "nat"); err != nil || len(s.Chains)+len(s.Leads) > 0 {
			t.Fatalf("an empty table: got %v, %v", s, err)
		}
		r.foreignRestore(t, shop)
		s, err := r.Survey(ctx, "nat")
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			`rule -A PREROUTING -m comment --comment "the way in" -j SHOP-ENTRY`,
			"rule -A OUTPUT -j SHOP-ENTRY",
			"rules of chain SHOP-COUNTER, which stays, as rules of others lead to it",
			"chain SHOP-DOOR",
			"chain SHOP-ENTRY",
		}
		if diff := cmp.Diff(want, s.Traces(isShop)); diff != "" {
			t.Errorf("traces (-want +got):\n%s", diff)
		}
		if err := r.RemoveChains(ctx, "nat", isShop); err != nil {
			t.Fatal(err)
		}
		left := []string{
			":OTHERS - [0:0]", ":SHOP-COUNTER - [0:0]",
			"-A OTHERS -j SHOP-COUNTER", "-A OUTPUT -j OTHERS", "-A PREROUTING -p tcp -m tcp --dport 22 -j ACCEPT",
		}
		got := r.rulesAndChains(t, "nat")
		slices.Sort(got)
		slices.Sort(left)
		if diff := cmp.Diff(left, got); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
		if s, err = r.Survey(ctx, "nat"); err != nil || len(s.Traces(isShop)) > 0 {
			t.Errorf("nothing more is to be removed; got %v, %v", s.Traces(isShop), err)
		}
		if err := r.RemoveChains(ctx, "nat", isShop); err != nil {
			t.Errorf("where nothing is left: %v", err)
		}
	})
}

// A rule that iptables cannot express keeps it from listing the table, not us from tidying up.
func TestRemoveChainsWhereIptablesCannotList(t *testing.T) {
	eachNFT(t, func(t *testing.T, r *Runner) {
		r.foreignRestore(t, shop)
		r.insertNative(t, "nat", "PREROUTING")
		s, err := r.Survey(context.Background(), "nat")
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Traces(isShop); !slices.Contains(got, "rule -A PREROUTING -j SHOP-ENTRY") || !slices.Contains(got, "chain SHOP-DOOR") {
			t.Errorf("got %q", got)
		}
		if err := r.RemoveChains(context.Background(), "nat", isShop); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil || strings.Contains(string(out), "SHOP-ENTRY") || !strings.Contains(string(out), "OTHERS") || !strings.Contains(string(out), "ct mark set") {
			t.Errorf("left (%v):\n%s", err, out)
		}
	})
}
