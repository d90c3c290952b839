package faults

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

var nftablesKernel = kernel{
	rules:    func(w *world) (string, error) { return tableRules(w, "sluice") },
	damages:  nftablesDamages,
	litter:   func(s *story) { s.nft("add element ip sluice cluster-ips { 192.0.2.254 }") },
	littered: "ip set cluster-ips 192.0.2.254\n",
	empty:    flushRuleset,
}

var nftablesDamages = []damage{
	// What is found by two look-ups is found by the second.
	{name: "rule deleted", do: deleteFirstLookUp},
	{name: "elements deleted", do: deleteSlots, excuses: []kind{fresh, nodePort}},
	{name: "map flushed", do: func(s *story) { s.inTables("flush map %s sluice services") }, excuses: []kind{fresh, nodePort, sticky}},
	{name: "chain flushed", do: func(s *story) { s.inTables("flush chain %s sluice nat-prerouting") }, excuses: []kind{fresh, nodePort, sticky}},
	{name: "map of clients flushed", do: func(s *story) { s.inTables("flush map %s sluice affinity") }, harmless: true, excuses: []kind{sticky}, forgets: true},
	{name: "tables deleted", do: func(s *story) { s.inTables("delete table %s sluice") }, excuses: []kind{fresh, nodePort, long, sticky, stream}, forgets: true},
	{name: "ruleset flushed", do: flushRuleset, excuses: []kind{fresh, nodePort, long, sticky, stream}, forgets: true},
}

// nftFamilies are the families of both tables as nft has them.
var nftFamilies = map[proxy.Family]string{proxy.IPv4: "ip", proxy.IPv6: "ip6"}

// inTables runs a command of nft for each family, which it has a verb for.
func (s *story) inTables(command string) {
	s.Helper()
	for _, family := range nftFamilies {
		s.nft(fmt.Sprintf(command, family))
	}
}

// deleteSlots deletes the first backend of web.
func deleteSlots(s *story) {
	for f, family := range nftFamilies {
		s.nft(fmt.Sprintf("delete element %s sluice endpoints { %v . tcp . %d . 0:0 }", family, clusterIP(s.web, f).Addr(), servicePort))
	}
}

var handle = regexp.MustCompile(`@services .*# handle (\d+)`)

func deleteFirstLookUp(s *story) {
	for _, family := range nftFamilies {
		out, err := s.Node.Run("nft", "-a", "list", "chain", family, "sluice", "nat-prerouting")
		found := handle.FindStringSubmatch(out)
		if err != nil || found == nil {
			s.Fatalf("no look-up in %s: %v", out, err)
		}
		s.nft(fmt.Sprintf("delete rule %s sluice nat-prerouting handle %s", family, found[1]))
	}
}

// tableRules are the tables of a name in both families: a line for each element and rule. Which backend has which slot or number, clients,
// and chains that wait to be used again are left out: they tell how the table came to be.
func tableRules(w *world, name string) (string, error) {
	var all []string
	for _, f := range proxy.Families {
		out, err := w.Node.Run("nft", "-s", "list", "ruleset", nftFamilies[f])
		if err != nil {
			return "", err
		}
		for _, block := range blocks(out, "table "+nftFamilies[f]+" "+name+" {") {
			for _, line := range block.lines(out) {
				all = append(all, fmt.Sprintf("%s %s %s\n", nftFamilies[f], block.name, line))
			}
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return strings.Compare(blockOf(a), blockOf(b)) })
	return strings.Join(all, ""), nil
}

// blockOf cuts a line of rules after the family, kind and name of its block.
func blockOf(line string) string { return strings.Join(strings.Fields(line)[:3], " ") }

// block is a set, map or chain.
type block struct {
	name string // kind and name
	text []string
}

// blocks are those of a table, in a listing of all tables.
func blocks(listing, table string) []block {
	var all []block
	inside := false
	for line := range strings.Lines(listing) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case !strings.HasPrefix(line, "\t"):
			inside = line == table || inside && line == ""
		case !inside || line == "\t}":
		case !strings.HasPrefix(line, "\t\t"):
			all = append(all, block{name: strings.TrimSuffix(strings.TrimSpace(line), " {")})
		default:
			last := &all[len(all)-1]
			last.text = append(last.text, strings.TrimSpace(line))
		}
	}
	return all
}

var number = regexp.MustCompile(`(^| )(none|[0-9a-f]{1,4}:[0-9a-f]{1,4})( |$)`)

// lines are what is in a block.
func (b block) lines(listing string) []string {
	kind, name, _ := strings.Cut(b.name, " ")
	switch {
	case name == "affinity":
		return nil
	case kind == "chain":
		idle := (strings.Contains(name, "lb-") || strings.HasPrefix(name, "learn-")) && !strings.Contains(listing, "jump "+name+" ") &&
			!strings.Contains(listing, "jump "+name+",")
		if idle && !strings.HasSuffix(name, "-prerouting") && !strings.HasSuffix(name, "-output") {
			return nil
		}
		return append([]string{"is there"}, b.text...)
	}
	lines := []string{"is there"}
	for _, line := range b.text {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "elements = { "), " }")
		for element := range strings.SplitSeq(strings.TrimSuffix(line, ","), ", ") {
			lines = append(lines, number.ReplaceAllString(element, "$1#$3"))
		}
	}
	slices.Sort(lines)
	return lines
}
