package faults

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
)

var iptablesKernel = kernel{
	rules:    iptablesRules,
	damages:  iptablesDamages,
	litter:   func(s *story) { s.iptables(s.T, "-t nat "+iptablesLitter) },
	littered: iptablesLitter + "\n",
	empty:    emptyTables,
}

const iptablesLitter = "-A SLUICE-POSTROUTING -j RETURN"

var iptablesDamages = []damage{
	{name: "nat flushed", do: func(s *story) { s.iptables(s.T, "-t nat -F") }, excuses: []kind{fresh, nodePort, sticky}, forgets: true},
	{name: "rule deleted", do: func(s *story) { s.deleteRule(1) }},
	{name: "last rule deleted", do: func(s *story) { s.deleteRule(4) }, excuses: []kind{fresh, nodePort}},
	{name: "jump deleted", do: func(s *story) { s.iptables(s.T, "-t nat -D PREROUTING 1") }, excuses: []kind{fresh, nodePort, sticky}},
	{name: "chain deleted", do: deleteChain, excuses: []kind{fresh, nodePort, sticky}},
	{name: "tables deleted", do: deleteTables, excuses: []kind{fresh, nodePort, long, sticky, stream}, forgets: true, on: "nft"},
	{name: "ruleset flushed", do: flushRuleset, excuses: []kind{fresh, nodePort, long, sticky, stream}, forgets: true, on: "nft"},
}

func deleteTables(s *story) {
	s.nft("delete", "table", "ip", "nat")
	s.nft("delete", "table", "ip6", "nat")
}

func flushRuleset(s *story) { s.nft("flush", "ruleset") }

func (s *story) nft(args ...string) {
	s.Helper()
	if _, err := s.Node.Run("nft", args...); err != nil {
		s.Fatal(err)
	}
}

// iptables runs a command of iptables on the node in both families.
func (w *world) iptables(t *testing.T, args string) {
	t.Helper()
	for _, f := range proxy.Families {
		if _, err := w.Node.Run(w.mode.Tool(f, ""), append([]string{"-w", "60"}, strings.Fields(args)...)...); err != nil {
			t.Fatal(err)
		}
	}
}

// counters are the parts of a save's lines that change with the traffic.
var counters = regexp.MustCompile(` \[\d+:\d+\]`)

// iptablesRules are Sluice's own chains and all jumps to them: sorted by table and chain, in order within a chain.
func iptablesRules(w *world) (string, error) {
	var all []string
	for _, f := range proxy.Families {
		out, err := w.Node.Run(w.mode.Tool(f, "save"))
		if err != nil {
			return "", err
		}
		table := ""
		for line := range strings.Lines(counters.ReplaceAllString(out, "")) {
			if strings.HasPrefix(line, "*") {
				table = fmt.Sprintf("%v %s ", f, strings.TrimSpace(line[1:]))
			} else if !strings.HasPrefix(line, "#") && strings.Contains(line, "SLUICE-") {
				all = append(all, table+line)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return strings.Compare(chainOf(a), chainOf(b)) })
	return strings.Join(all, ""), nil
}

// chainOf cuts a line of rules after the chain's name.
func chainOf(line string) string {
	words := strings.Fields(line)
	return strings.Join(words[:min(4, len(words))], " ")
}

// place is where the rules for the ClusterIP of web over TCP are: a chain, and the number of the first that sends
// connections to a backend.
type place struct {
	chain string
	first int
}

// places are those of both families.
func (s *story) places() map[proxy.Family]place {
	s.Helper()
	found := map[proxy.Family]place{}
	numbers := map[string]int{}
	for line := range strings.Lines(s.before) {
		chain := chainOf(line)
		numbers[chain]++
		words := strings.Fields(chain)
		if !strings.Contains(line, `--comment "default/web:tcp cluster IP"`) || words[1] != "nat" {
			continue
		}
		for _, f := range proxy.Families {
			if words[0] == f.String() {
				found[f] = place{words[3], numbers[chain]}
			}
		}
	}
	if len(found) < len(proxy.Families) {
		s.Fatalf("rules of default/web:tcp: %v", found)
	}
	return found
}

// deleteRule deletes the n-th rule for one of the backends of web.
func (s *story) deleteRule(n int) {
	s.Helper()
	for f, at := range s.places() {
		if _, err := s.Node.Run(s.mode.Tool(f, ""), "-w", "60", "-t", "nat", "-D", at.chain, fmt.Sprint(at.first+n-1)); err != nil {
			s.Fatal(err)
		}
	}
}

// deleteChain deletes the chain that web is in with all that leads to it, as somebody must who wants it gone.
func deleteChain(s *story) {
	for f, at := range s.places() {
		prefix := f.String() + " nat "
		script := "*nat\n"
		for line := range strings.Lines(s.before) {
			if rule, ok := strings.CutPrefix(line, prefix); ok && strings.HasSuffix(rule, "-j "+at.chain+"\n") {
				script += "-D" + strings.TrimPrefix(rule, "-A")
			}
		}
		script += fmt.Sprintf("-F %s\n-X %s\nCOMMIT\n", at.chain, at.chain)
		if _, err := s.Node.Run("sh", "-c", fmt.Sprintf("%s --noflush -w 60 <<'END'\n%sEND", s.mode.Tool(f, "restore"), script)); err != nil {
			s.Fatal(err)
		}
	}
}

func emptyTables(s *story) {
	for _, table := range []string{"nat", "filter"} {
		s.iptables(s.T, "-t "+table+" -F")
		s.iptables(s.T, "-t "+table+" -X")
	}
	if s.mode.Backend == "nft" {
		s.nft("flush", "ruleset")
	}
}
