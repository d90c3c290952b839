package xtables

import (
	"context"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
)

var testJumps = []Jump{
	{Table: "nat", Chain: "PREROUTING", Target: "SLUICE-A", Comment: "sluice: services"},
	{Table: "nat", Chain: "PREROUTING", Match: []string{"-m", "addrtype", "--dst-type", "LOCAL"}, Target: "SLUICE-B"},
	{Table: "nat", Chain: "OUTPUT", Target: "SLUICE-A", Comment: "sluice: services"},
	{Table: "filter", Chain: "FORWARD", Match: []string{"-m", "conntrack", "--ctstate", "NEW"}, Target: "SLUICE-A", Comment: `a "quoted" \ word`},
	{Table: "filter", Chain: "FORWARD", Target: "SLUICE-A"},
	{Table: "filter", Chain: "OUTPUT", Match: []string{"-m", "conntrack", "--ctstate", "NEW", "-m", "addrtype", "!", "--dst-type", "LOCAL"}, Target: "SLUICE-A"},
	{Table: "filter", Chain: "OUTPUT", Match: []string{"-p", "tcp"}, Target: "SLUICE-A"},
	{Table: "filter", Chain: "OUTPUT", Match: []string{"!", "-o", "lo", "-p", "udp"}, Target: "SLUICE-A"},
}

// eachInterface runs f with the real ones of both backends and families, with one whose chains iptables cannot
// list, and with the fake. rules gives those of a chain, and foreign writes as others do.
func eachInterface(t *testing.T, f func(t *testing.T, i Interface, rules listFunc, foreign func(lines ...string))) {
	prepare := []string{"*nat", ":SLUICE-A - [0:0]", ":SLUICE-B - [0:0]", ":KUBE-SERVICES - [0:0]", ":CNI - [0:0]", "COMMIT",
		"*filter", ":SLUICE-A - [0:0]", "COMMIT"}
	t.Run("fake", func(t *testing.T) {
		fake := NewFake(proxy.IPv4, 1)
		mustRestore(t, fake, prepare...)
		f(t, fake, fake.list, func(lines ...string) { mustRestore(t, quiet(fake), lines...) })
	})
	eachKernel(t, func(t *testing.T, r *Runner) {
		mustRestore(t, r, prepare...)
		f(t, r, r.listRules(context.Background()), func(lines ...string) {
			r.foreignRestore(t, strings.Join(lines, "\n")+"\n")
		})
	})
	for _, family := range proxy.Families {
		t.Run("native/"+family.String(), func(t *testing.T) {
			enterNetns(t)
			r := newRunner(t, family, NFT)
			mustRestore(t, r, prepare...)
			r.addNative(t)
			f(t, r, r.listRules(context.Background()), func(lines ...string) {
				r.foreignRestore(t, strings.Join(lines, "\n")+"\n")
				r.addNative(t)
			})
			if !r.hasNative(t) {
				t.Error("rules of others are gone")
			}
		})
	}
}

// targetsIn shows where the rules of a chain lead.
func targetsIn(t *testing.T, rules listFunc, table, chain string) string {
	t.Helper()
	lines, err := rules(table, chain)
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, line := range lines.rules {
		if target := targetOf(line); target != "" {
			targets = append(targets, strings.TrimPrefix(target, "SLUICE-"))
		}
	}
	return strings.Join(targets, " ")
}

func mustEnsure(t *testing.T, i Interface, jumps []Jump) {
	t.Helper()
	if err := i.EnsureJumps(context.Background(), jumps); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureJumpsPutsThemFirstAndOnce(t *testing.T) {
	eachInterface(t, func(t *testing.T, i Interface, rules listFunc, foreign func(...string)) {
		foreign("*nat", "-A PREROUTING -j CNI", "-A PREROUTING -j KUBE-SERVICES", "COMMIT")
		check := func(when string) {
			t.Helper()
			for _, want := range [][3]string{
				{"nat", "PREROUTING", "A B CNI KUBE-SERVICES"}, {"nat", "OUTPUT", "A"}, {"filter", "FORWARD", "A A"}, {"filter", "OUTPUT", "A A A"}, {"filter", "INPUT", ""},
			} {
				if got := targetsIn(t, rules, want[0], want[1]); got != want[2] {
					t.Errorf("%s: %s %s leads to %q instead of %q", when, want[0], want[1], got, want[2])
				}
			}
		}
		mustEnsure(t, i, testJumps)
		check("first")
		if plan, err := planJumps(testJumps, rules); err != nil || len(plan.input.order)+len(plan.native) > 0 {
			t.Errorf("a second call would do %v, error %v", plan, err)
		}
		mustEnsure(t, i, testJumps)
		check("again")
	})
}

func TestEnsureJumpsMendsOrderOnlyWhereItMatters(t *testing.T) {
	tests := []struct {
		name    string
		foreign []string
		want    string
	}{
		{"kube-proxy came before ours", []string{"-I PREROUTING -j KUBE-SERVICES"}, "A B KUBE-SERVICES"},
		{"kube-proxy came between ours", []string{"-I PREROUTING 2 -j KUBE-SERVICES"}, "A B KUBE-SERVICES"},
		{"somebody else came before ours", []string{"-I PREROUTING -j CNI"}, "CNI A B"},
		{"network policies came before ours", []string{":KUBE-ROUTER-INPUT - [0:0]", "-I PREROUTING -j KUBE-ROUTER-INPUT"}, "KUBE-ROUTER-INPUT A B"},
		{"kube-proxy came behind ours", []string{"-A PREROUTING -j KUBE-SERVICES"}, "A B KUBE-SERVICES"},
		{"one is doubled", []string{`-A PREROUTING -m comment --comment "sluice: services" -j SLUICE-A`}, "A B"},
		{"one is of an older release", []string{"-A PREROUTING -p tcp -j SLUICE-A"}, "A B"},
		{"one is gone", []string{"-D PREROUTING -m addrtype --dst-type LOCAL -j SLUICE-B", "-A PREROUTING -j CNI"}, "A B CNI"},
		{"all are gone", []string{"-F PREROUTING", "-A PREROUTING -j CNI"}, "A B CNI"},
		{"order is wrong", []string{"-D PREROUTING -m addrtype --dst-type LOCAL -j SLUICE-B", "-I PREROUTING -m addrtype --dst-type LOCAL -j SLUICE-B"}, "A B"},
	}
	eachInterface(t, func(t *testing.T, i Interface, rules listFunc, foreign func(...string)) {
		for _, test := range tests {
			foreign("*nat", "-F PREROUTING", "COMMIT")
			mustEnsure(t, i, testJumps)
			foreign(append(append([]string{"*nat"}, test.foreign...), "COMMIT")...)
			mustEnsure(t, i, testJumps)
			if got := targetsIn(t, rules, "nat", "PREROUTING"); got != test.want {
				t.Errorf("%s: %q instead of %q", test.name, got, test.want)
			}
		}
	})
}

func TestRemoveJumpsLeavesOthers(t *testing.T) {
	eachInterface(t, func(t *testing.T, i Interface, rules listFunc, foreign func(...string)) {
		mustEnsure(t, i, testJumps)
		foreign("*nat", "-I PREROUTING -j CNI", `-A PREROUTING -m comment --comment "-j SLUICE-A" -j CNI`, "-A PREROUTING -j SLUICE-B", "COMMIT")
		if err := i.RemoveJumps(context.Background(), "SLUICE-"); err != nil {
			t.Fatal(err)
		}
		for _, want := range [][3]string{{"nat", "PREROUTING", "CNI CNI"}, {"nat", "OUTPUT", ""}, {"filter", "FORWARD", ""}} {
			if got := targetsIn(t, rules, want[0], want[1]); got != want[2] {
				t.Errorf("%s %s leads to %q instead of %q", want[0], want[1], got, want[2])
			}
		}
	})
}

func TestRemoveJumpsOfOnePrefix(t *testing.T) {
	eachInterface(t, func(t *testing.T, i Interface, rules listFunc, _ func(...string)) {
		mustEnsure(t, i, testJumps)
		if err := i.RemoveJumps(context.Background(), "SLUICE-B"); err != nil {
			t.Fatal(err)
		}
		if got := targetsIn(t, rules, "nat", "PREROUTING"); got != "A" {
			t.Errorf("PREROUTING leads to %q", got)
		}
	})
}
