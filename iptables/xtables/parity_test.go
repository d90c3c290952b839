package xtables

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/proxy"
)

// twins are the fake and both real backends, in one namespace. They see the same input.
type twins struct {
	fake *Fake
	real []*Runner
}

func newTwins(t *testing.T, family proxy.Family) twins {
	t.Helper()
	enterNetns(t)
	w := twins{fake: NewFake(family, 1)}
	for _, backend := range Backends {
		w.real = append(w.real, newRunner(t, family, backend))
	}
	return w
}

// reset empties the tables of all.
func (w *twins) reset(t rapid.TB) {
	w.fake = NewFake(w.fake.family, 1)
	empty := "*nat\n-F\n-X\nCOMMIT\n*filter\n-F\n-X\nCOMMIT\n"
	for _, r := range w.real {
		if err := r.Restore(context.Background(), []byte(empty)); err != nil {
			t.Fatal(err)
		}
	}
}

// restore gives what the fake, and what the first of the real ones to refuse, says about input.
func (w *twins) restore(input string) (fake, actual error) {
	for _, r := range w.real {
		if err := r.Restore(context.Background(), []byte(input)); err != nil && actual == nil {
			actual = fmt.Errorf("%s: %w", r.Backend(), err)
		}
	}
	return w.fake.Restore(context.Background(), []byte(input)), actual
}

// same compares the chains and jumps of all.
func (w *twins) same(t rapid.TB) {
	for _, table := range ourTables {
		want, err := w.fake.Chains(context.Background(), table, "SLUICE-")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range w.real {
			got, err := r.Chains(context.Background(), table, "SLUICE-")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("table %s, fake and %s differ (-fake +real)\n%s", table, r.Backend(), diff)
			}
		}
	}
}

// Rules that both backends take, and that they refuse, given as the table and the rule's arguments. 4 and 6 are
// those of one family.
var (
	goodRules = map[string][]string{
		"nat": {
			"-j RETURN", "-j SLUICE-T", "-g SLUICE-T", "", "-j ACCEPT",
			"-p tcp -m tcp --dport 80 -j SLUICE-T", "-p udp -m udp --dport 8000:8191 -j RETURN", "-p tcp -m tcp ! --dport 80 -j RETURN",
			`-m comment --comment "ns/name:port cluster IP" -j RETURN`, `-m comment --comment "a \"b\" \\ c" -j RETURN`,
			`-m comment --comment ` + strings.Repeat("x", 255) + ` -j RETURN`,
			"-m statistic --mode random --probability 0.3333333333 -j RETURN", "-m statistic --mode random --probability 1.0000000000 -j RETURN",
			"-m statistic --mode nth --every 3 --packet 0 -j RETURN",
			"-m recent --name SLUICE-SEP-0123456789ABCDEF --rcheck --seconds 10800 --reap -j RETURN",
			"-m recent --name X --set -j RETURN", "-m recent --set", "-m recent --name " + strings.Repeat("n", 199) + " --set -j RETURN",
			"-m addrtype --dst-type LOCAL -j RETURN", "-m addrtype ! --src-type LOCAL --dst-type UNICAST,LOCAL -j RETURN",
			"-m mark --mark 0x4000/0x4000 -j RETURN", "-m mark ! --mark 0x4000/0x4000 -j RETURN", "-m mark --mark 16384 -j RETURN",
			"-j MARK --set-xmark 0x4000/0x4000", "-j MARK --xor-mark 0x4000", "-j MARK --or-mark 0x4000", "-j MARK --set-mark 1/3",
			"-j MASQUERADE", "-j MASQUERADE --random-fully", "-i cni0 -j RETURN", "-i cni+ -j RETURN", "! -i cni+ -j RETURN",
			"-o abcdefghijklmno -j RETURN", "-p tcp -j RETURN", "-p all -j RETURN", "! -p udp -j RETURN",
			"-m comment --comment a -m comment --comment b -j RETURN", "-p tcp -m tcp -j DNAT --to-destination :80",
		},
		"nat 4": {
			"-s 10.0.0.0/8 -j RETURN", "! -s 10.0.0.0/8 -d 10.1.2.3/32 -j RETURN", "-d 10.1.2.3 -j RETURN", "-s 10.0.0.1/8 -j RETURN", "-s 0.0.0.0/0 -j RETURN",
			"-p tcp -m tcp -j DNAT --to-destination 10.0.0.1:80", "-p udp -j DNAT --to-destination 10.0.0.1:65535", "-j DNAT --to-destination 10.0.0.1",
		},
		"nat 6": {
			"-s fd00::/8 -j RETURN", "! -s fd00::/8 -d fd00::1/128 -j RETURN", "-d ::1 -j RETURN", "-s ::/0 -j RETURN",
			"-p tcp -m tcp -j DNAT --to-destination [fd00::1]:80", "-j DNAT --to-destination fd00::1",
		},
		"filter": {
			"-j DROP", "-j REJECT", "-p tcp -j REJECT --reject-with tcp-reset", "-m conntrack --ctstate NEW -j DROP",
			"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
			"-m mark --mark 0x4000/0x4000 -j ACCEPT", "-m addrtype ! --dst-type LOCAL -j REJECT",
		},
		"filter 4": {"-j REJECT --reject-with icmp-port-unreachable"},
		"filter 6": {"-j REJECT --reject-with icmp6-port-unreachable"},
	}
	badRules = map[string][]string{
		"nat": {
			"-j NOPE", "-g NOPE", "-g RETURN", "-j DROP", "-j REJECT", "-j PREROUTING", "-m nope -j RETURN", "--nope -j RETURN", "-j RETURN -j RETURN", "-j", "-m", "!", "extra -j RETURN",
			"--dport 80 -j RETURN", "-m tcp --dport 80 -j RETURN", "-p udp -m tcp --dport 80 -j RETURN", "-p tcp -m tcp --dport 65536 -j RETURN",
			"-p tcp -m tcp --dport 90:80 -j RETURN", "-p tcp -m tcp --dport -j RETURN", "-p nope -j RETURN", "-p tcp -p tcp -j RETURN",
			"-m statistic -j RETURN", "-m statistic --mode random -j RETURN", "-m statistic --mode nth -j RETURN", "-m statistic --mode x --probability 1 -j RETURN",
			"-m statistic --mode random --probability 1.1 -j RETURN", "-m statistic --mode random --probability x -j RETURN",
			"-m recent --name X -j RETURN", "-m recent --rcheck --reap -j RETURN", "-m recent --set --rcheck -j RETURN", "-m recent --set --seconds 5 -j RETURN",
			"-m recent --rcheck --seconds 0 -j RETURN", "-m recent --rcheck --seconds x -j RETURN",
			"-m addrtype -j RETURN", "-m addrtype --dst-type HERE -j RETURN", "-m mark -j RETURN", "-m mark --mark x -j RETURN", "-m mark --mark 0x1ffffffff -j RETURN",
			"-j MARK", "-j MARK --set-xmark x", "-j MARK --set-xmark 1 --or-mark 1", "-j DNAT", "-j DNAT --to-destination nowhere", "-p tcp -j DNAT --to-destination :65536",
			"-j DNAT --to-destination :80", "-i abcdefghijklmnop -j RETURN", "-m comment -j RETURN", "-m conntrack --ctstate FRESH -j RETURN", "-m conntrack -j RETURN",
			"! -j RETURN", "! -m comment --comment x -j RETURN", "-m comment ! --comment x -j RETURN",
		},
		"nat 4": {
			"-s 10.0.0.256 -j RETURN", "-s 10.0.0.0/33 -j RETURN", "-s fd00::1 -j RETURN", "-s 10.0.0.1 -s 10.0.0.2 -j RETURN", "-p tcp -j DNAT --to-destination [fd00::1]:80",
			"-j DNAT --to-destination 10.0.0.1:80", "-p tcp -j DNAT --to-destination 10.0.0.1:65536",
		},
		"nat 6": {
			"-s fd00::g -j RETURN", "-s fd00::/129 -j RETURN", "-s 10.0.0.1 -j RETURN", "-p tcp -j DNAT --to-destination 10.0.0.1:80", "-j DNAT --to-destination [fd00::1]:80",
		},
		"filter": {
			"-p tcp -j DNAT --to-destination :80", "-j MASQUERADE", "-j REJECT --reject-with rudely", "-j REJECT --reject-with tcp-reset",
		},
		"filter 4": {"-j REJECT --reject-with icmp6-port-unreachable"},
		"filter 6": {"-j REJECT --reject-with icmp-port-unreachable"},
	}
)

// rulesOf picks those for a table and family.
func rulesOf(rules map[string][]string, table string, family proxy.Family) []string {
	suffix := map[proxy.Family]string{proxy.IPv4: " 4", proxy.IPv6: " 6"}[family]
	return slices.Concat(rules[table], rules[table+suffix])
}

func TestFakeAcceptsTheRulesThatBothBackendsAccept(t *testing.T) {
	for _, family := range proxy.Families {
		t.Run(family.String(), func(t *testing.T) {
			w := newTwins(t, family)
			for _, table := range ourTables {
				for _, rule := range rulesOf(goodRules, table, family) {
					w.reset(t)
					fake, actual := w.restore("*" + table + "\n:SLUICE-T - [0:0]\n:SLUICE-A - [0:0]\n-A SLUICE-A " + rule + "\nCOMMIT\n")
					if fake != nil || actual != nil {
						t.Errorf("table %s, %q: fake says %v, real says %v", table, rule, fake, actual)
					}
					w.same(t)
				}
			}
		})
	}
}

func TestFakeRefusesTheRulesThatABackendRefuses(t *testing.T) {
	for _, family := range proxy.Families {
		t.Run(family.String(), func(t *testing.T) {
			w := newTwins(t, family)
			for _, table := range ourTables {
				for _, rule := range rulesOf(badRules, table, family) {
					fake, actual := w.restore("*" + table + "\n:SLUICE-A - [0:0]\n-A SLUICE-A " + rule + "\nCOMMIT\n")
					if fake == nil || actual == nil {
						t.Errorf("table %s, %q: fake says %v, real says %v", table, rule, fake, actual)
					}
				}
			}
		})
	}
}

// Whole inputs; those in goodInputs are executed one after the other.
var (
	goodInputs = []string{
		"",
		"\n# a comment\n*nat\n\n# another\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\n:SLUICE-B - [0:0]\n-A SLUICE-A -j SLUICE-B\n-A PREROUTING -j SLUICE-A\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\nCOMMIT\n", // emptied, though it is jumped to
		"*nat\n-X SLUICE-B\nCOMMIT\n",
		"*nat\n:SLUICE-B - [0:0]\n-A SLUICE-B -j RETURN\n:SLUICE-B - [0:0]\n-X SLUICE-B\nCOMMIT\n",
		"*nat\n-N SLUICE-B\n-A SLUICE-B -j RETURN\n-I SLUICE-B -j ACCEPT\n-I SLUICE-B -j SLUICE-A\n-D SLUICE-B 1\n-D SLUICE-B -j RETURN\nCOMMIT\n",
		"*nat\n-I SLUICE-B 2 -j RETURN\n-D SLUICE-B 1\nCOMMIT\n",
		"*nat\n:SLUICE-890123456789012345678 - [0:0]\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n:SLUICE-A - [0:0]\nCOMMIT\n",
		"*nat\n-F SLUICE-B\n-F PREROUTING\n-X SLUICE-A\n-X SLUICE-B\nCOMMIT\n",
		// A loop that no packet can enter.
		"*nat\n:SLUICE-A - [0:0]\n:SLUICE-B - [0:0]\n-A SLUICE-A -j SLUICE-B\n-A SLUICE-B -j SLUICE-A\nCOMMIT\n",
		"*nat\n-F\n-X\nCOMMIT\n",
		strings.Join(deepest(15), "\n") + "\n",
	}
	badInputs = []string{
		"*nope\nCOMMIT\n", "COMMIT\n", ":SLUICE-A - [0:0]\n", "-A OUTPUT -j RETURN\n", "hello\n", "*nat\n*filter\nCOMMIT\n", "*nat\nCOMMIT\nCOMMIT\n",
		"*nat\n", "*nat\n:SLUICE-A - [0:0]\n", "*nat\nCOMMIT", " *nat\nCOMMIT\n", "*nat\nhello\nCOMMIT\n", "*nat\n-Q SLUICE-A\nCOMMIT\n",
		"*nat\n:SLUICE-A\nCOMMIT\n", "*nat\n:SLUICE-A ACCEPT [0:0]\nCOMMIT\n", "*nat\n:SLUICE A - [0:0]\nCOMMIT\n", "*nat\n:-A - [0:0]\nCOMMIT\n", "*nat\n:ACCEPT - [0:0]\nCOMMIT\n",
		"*nat\n:SLUICE-8901234567890123456789 - [0:0]\nCOMMIT\n", "*nat\n:PREROUTING MAYBE [0:0]\nCOMMIT\n",
		"*nat\n-A SLUICE-A -j RETURN\nCOMMIT\n", "*nat\n-F SLUICE-A\nCOMMIT\n", "*nat\n-X SLUICE-A\nCOMMIT\n", "*nat\n-X PREROUTING\nCOMMIT\n", "*nat\n-D SLUICE-A 1\nCOMMIT\n",
		"*nat\n-N SLUICE-A\n-N SLUICE-A\nCOMMIT\n", "*nat\n:SLUICE-A - [0:0]\n-N SLUICE-A\nCOMMIT\n", "*nat\n-N PREROUTING\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\n-A SLUICE-A -j RETURN\n-X SLUICE-A\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\n-A OUTPUT -j SLUICE-A\n-X SLUICE-A\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\n-A SLUICE-A -j SLUICE-B\n:SLUICE-B - [0:0]\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\n-D SLUICE-A -j RETURN\nCOMMIT\n", "*nat\n:SLUICE-A - [0:0]\n-D SLUICE-A 1\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\n-I SLUICE-A 2 -j RETURN\nCOMMIT\n",
		// Backend nft may not find a rule of the same commit to insert before.
		"*nat\n:SLUICE-A - [0:0]\n-A SLUICE-A -j RETURN\n-I SLUICE-A -j ACCEPT\n-I SLUICE-A 2 -p tcp -j RETURN\n-D SLUICE-A 1\n-D SLUICE-A -j RETURN\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\n-A SLUICE-A -j SLUICE-A\n-A OUTPUT -j SLUICE-A\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\n-A SLUICE-A -j MASQUERADE\n-A OUTPUT -j SLUICE-A\nCOMMIT\n",
		"*nat\n:SLUICE-A - [0:0]\n-A SLUICE-A -p tcp -j DNAT --to-destination :80\n-A POSTROUTING -j SLUICE-A\nCOMMIT\n",
		"*nat\n-A OUTPUT -i lo -j RETURN\nCOMMIT\n", "*nat\n-A PREROUTING -o lo -j RETURN\nCOMMIT\n",
		strings.Join(deepest(16), "\n") + "\n",
	}
)

func TestFakeExecutesInputsAsBothBackendsDo(t *testing.T) {
	for _, family := range proxy.Families {
		t.Run(family.String(), func(t *testing.T) {
			w := newTwins(t, family)
			for _, input := range goodInputs {
				if fake, actual := w.restore(input); fake != nil || actual != nil {
					t.Errorf("%q: fake says %v, real says %v", input, fake, actual)
				}
				w.same(t)
			}
			for _, input := range badInputs {
				w.reset(t)
				if fake, actual := w.restore(input); fake == nil || actual == nil {
					t.Errorf("%q: fake says %v, real says %v", input, fake, actual)
				}
			}
		})
	}
}

// genInput makes input of few chains, so that lines often hit what earlier ones made.
func genInput(t *rapid.T) string {
	name := rapid.SampledFrom([]string{"SLUICE-A", "SLUICE-B", "SLUICE-C", "SLUICE-D"})
	var lines []string
	for range rapid.IntRange(1, 6).Draw(t, "lines") {
		a, b := name.Draw(t, "chain"), name.Draw(t, "other")
		lines = append(lines, rapid.SampledFrom([]string{
			":" + a + " - [0:0]", ":" + a + " - [0:0]", "-N " + a, "-X " + a, "-F " + a, "-A " + a + " -j " + b, "-A " + a + " -j RETURN",
			"-I " + a + " -j " + b, "-I " + a + " 2 -j " + b, "-D " + a + " -j " + b, "-D " + a + " 1", "-A OUTPUT -j " + a, "-D OUTPUT -j " + a,
		}).Draw(t, "line"))
	}
	return "*nat\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
}

func TestFakeAgreesWithBothBackendsOnAnySequence(t *testing.T) {
	w := newTwins(t, proxy.IPv4)
	rapid.Check(t, func(t *rapid.T) {
		w.reset(t)
		for range rapid.IntRange(1, 4).Draw(t, "inputs") {
			input := genInput(t)
			fake, actual := w.restore(input)
			if (fake == nil) != (actual == nil) {
				t.Fatalf("%q: fake says %v, real says %v", input, fake, actual)
			}
			w.same(t)
		}
	})
}
