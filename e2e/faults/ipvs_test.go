package faults

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var ipvsKernel = kernel{
	rules:    ipvsRules,
	damages:  ipvsDamages,
	litter:   func(s *story) { s.nft("add element ip sluice-ipvs cluster-ips { 192.0.2.254 }") },
	littered: "ip set cluster-ips 192.0.2.254\n",
	ownPorts: true,
	empty:    emptyIPVS,
}

// Connections of the node itself need neither routes nor rules to be led to their virtual servers, all others do.
var ipvsDamages = []damage{
	{name: "record flushed", do: func(s *story) { s.inTables("flush set %s sluice-ipvs own-servers") }},
	{name: "map flushed", do: func(s *story) { s.inTables("flush map %s sluice-ipvs from-outside") }, excuses: []kind{fresh, nodePort, sticky}},
	{name: "chain flushed", do: func(s *story) { s.inTables("flush chain %s sluice-ipvs lead-prerouting") }, excuses: everyKind},
	{name: "rule of routing deleted", do: func(s *story) { s.ip("rule del priority 8") }, excuses: everyKind},
	{name: "route flushed", do: func(s *story) { s.ip("route flush table 21338") }, excuses: everyKind},
	{name: "lo down", do: bounceLoopback, excuses: everyKind},
	{name: "virtual servers cleared", do: func(s *story) { s.onNode("ipvsadm -C") }, excuses: []kind{fresh, nodePort, sticky, stream}, forgets: true, cuts: true},
	{name: "ruleset flushed", do: flushRuleset, excuses: everyKind},
}

var everyKind = []kind{fresh, nodePort, long, sticky, stream}

// onNode runs a command line on the node.
func (s *story) onNode(line string) {
	s.Helper()
	words := strings.Fields(line)
	if _, err := s.Node.Run(words[0], words[1:]...); err != nil {
		s.Fatal(err)
	}
}

// ip runs a command of ip for each family.
func (s *story) ip(command string) {
	s.Helper()
	s.onNode("ip -4 " + command)
	s.onNode("ip -6 " + command)
}

// bounceLoopback makes the kernel drop all routes over lo.
func bounceLoopback(s *story) {
	s.onNode("ip link set lo down")
	s.onNode("ip link set lo up")
}

// virtualServers is the command that lists them.
const virtualServers = "ipvsadm -Sn"

// ipvsLists are what Sluice has there besides its table: commands, and which lines of what they say.
var ipvsLists = map[string]*regexp.Regexp{
	virtualServers:               regexp.MustCompile(`.`),
	"ip -4 rule":                 regexp.MustCompile(`^(7|8|32800):`),
	"ip -6 rule":                 regexp.MustCompile(`^(7|8|32800):`),
	"ip -4 route show table all": regexp.MustCompile(` table 2133[89] `),
	"ip -6 route show table all": regexp.MustCompile(` table 2133[89] `),
}

// ipvsRules are Sluice's tables, virtual servers, rules and routes. Backends that drain are left out: when they go depends
// on their connections.
func ipvsRules(w *world) (string, error) {
	tables, err := tableRules(w, "sluice-ipvs")
	if err != nil {
		return "", err
	}
	var all []string
	for command, ours := range ipvsLists {
		words := strings.Fields(command)
		out, err := w.Node.Run(words[0], words[1:]...)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(out) {
			if line = strings.TrimSpace(line); ours.MatchString(line) && !strings.HasSuffix(line, " -w 0") {
				all = append(all, fmt.Sprintf("%s: %s\n", command, line))
			}
		}
	}
	slices.Sort(all)
	return tables + strings.Join(all, ""), nil
}

func emptyIPVS(s *story) {
	flushRuleset(s)
	s.onNode("ipvsadm -C")
	for _, priority := range []string{"7", "8", "32800"} {
		s.ip("rule del priority " + priority)
	}
	s.ip("route flush table 21338")
	s.ip("route flush table 21339")
}
