package xtables

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

func TestFakeCommitsTableByTable(t *testing.T) {
	f := NewFake(proxy.IPv4, 1)
	err := f.Restore(context.Background(), []byte(strings.Join([]string{
		"*filter", ":SLUICE-F - [0:0]", "COMMIT",
		"*nat", ":SLUICE-A - [0:0]", "-A SLUICE-A -j SLUICE-B", "COMMIT",
		"*mangle", ":SLUICE-M - [0:0]", "COMMIT", "",
	}, "\n")))
	var refused *RestoreError
	if !errors.As(err, &refused) || refused.Line != 6 || refused.Resource {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff("*filter\n:SLUICE-F - [0:0]\nCOMMIT\n", f.Dump()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestFakeFailuresLeaveWholeTables(t *testing.T) {
	f := NewFake(proxy.IPv4, 1)
	f.FailRate = 1
	input := []byte("*filter\n:SLUICE-A - [0:0]\n:SLUICE-B - [0:0]\nCOMMIT\n*nat\n:SLUICE-C - [0:0]\nCOMMIT\n")
	seen := map[int]bool{}
	for range 100 {
		var refused *RestoreError
		if err := f.Restore(context.Background(), input); !errors.As(err, &refused) || !refused.Resource {
			t.Fatalf("error is %v", err)
		}
		dump := f.Dump()
		if strings.Contains(dump, "-A ") != strings.Contains(dump, "-B ") {
			t.Fatalf("half a table:\n%s", dump)
		}
		seen[strings.Count(dump, "COMMIT")] = true
		mustRestore(t, quiet(f), "*filter", "-X", "COMMIT", "*nat", "-X", "COMMIT")
	}
	if diff := cmp.Diff(map[int]bool{0: true, 1: true, 2: true}, seen); diff != "" {
		t.Errorf("numbers of tables done (-want +got)\n%s", diff)
	}
}

// quiet is f without failures.
func quiet(f *Fake) *Fake {
	c := *f
	c.FailRate, c.FailEvery = 0, 0
	return &c
}

func TestFakeFailEvery(t *testing.T) {
	f := NewFake(proxy.IPv4, 1)
	f.FailEvery = 3
	var failed []int
	for i := 1; i <= 7; i++ {
		if _, err := f.Chains(context.Background(), "nat", ""); err != nil {
			failed = append(failed, i)
		}
	}
	if diff := cmp.Diff([]int{3, 6}, failed); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestFakeRefuseBlamesTheRule(t *testing.T) {
	for _, blind := range []bool{false, true} {
		f := NewFake(proxy.IPv4, 1)
		f.Blind = blind
		f.Refuse = func(table, chain, rule string) string {
			if table == "nat" && chain == "SLUICE-A" && strings.Contains(rule, "--dport 81") {
				return "out of ports"
			}
			return ""
		}
		err := f.Restore(context.Background(), []byte("*nat\n:SLUICE-A - [0:0]\n-A SLUICE-A -p tcp -m tcp --dport 80 -j RETURN\n"+
			"-A SLUICE-A -p tcp -m tcp --dport 81 -j RETURN\nCOMMIT\n"))
		var refused *RestoreError
		if !errors.As(err, &refused) || refused.Output != "out of ports" {
			t.Fatalf("error is %v", err)
		}
		if want := map[bool]int{false: 4, true: 0}[blind]; refused.Line != want {
			t.Errorf("line %d instead of %d", refused.Line, want)
		}
		if f.Dump() != "" {
			t.Errorf("left behind:\n%s", f.Dump())
		}
	}
}

// deepest is input for a way of n user-defined chains.
func deepest(n int) []string {
	lines := []string{"*nat"}
	for i := 1; i <= n; i++ {
		lines = append(lines, fmt.Sprintf(":SLUICE-%d - [0:0]", i))
	}
	for i := 1; i < n; i++ {
		lines = append(lines, fmt.Sprintf("-A SLUICE-%d -j SLUICE-%d", i, i+1))
	}
	return append(lines, "-A OUTPUT -j SLUICE-1", "COMMIT")
}

func TestFakeRefusesSixteenChainsBelowEachOther(t *testing.T) {
	mustRestore(t, NewFake(proxy.IPv4, 1), deepest(15)...)
	err := NewFake(proxy.IPv4, 1).Restore(context.Background(), []byte(strings.Join(deepest(16), "\n")+"\n"))
	if err == nil {
		t.Error("accepted")
	}
}

func BenchmarkFakeRestore(b *testing.B) {
	f := NewFake(proxy.IPv4, 1)
	lines := []string{"*nat"}
	for i := range 1000 {
		lines = append(lines, fmt.Sprintf(":SLUICE-SVC-%d - [0:0]", i),
			fmt.Sprintf(`-A SLUICE-SVC-%d -p tcp -m tcp -j DNAT --to-destination 10.0.0.1:80`, i))
	}
	input := []byte(strings.Join(append(lines, "COMMIT", ""), "\n"))
	for b.Loop() {
		if err := f.Restore(context.Background(), input); err != nil {
			b.Fatal(err)
		}
	}
}
