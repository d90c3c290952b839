package iptables

import (
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// kindsOf gives each ServicePort its kind: the options, matches and targets that its rules use, whatever their values.
func kindsOf(ports []*proxy.ServicePort, n *proxy.Node) map[*proxy.ServicePort]string {
	r := newRenderer(n)
	kinds := make(map[*proxy.ServicePort]string, len(ports))
	var own chains
	var adds []entry
	for _, sp := range ports {
		own.reset()
		r.servicePort(&own, sp)
		words := []string{sp.Name.Protocol.String()}
		for _, c := range own.list {
			words = appendForm(words, string(own.of(c)))
		}
		adds = r.entries(adds[:0], sp)
		for _, e := range adds {
			words = appendForm(words, e.rules.mark+"\n"+e.rules.text)
		}
		slices.Sort(words)
		kinds[sp] = strings.Join(slices.Compact(words), " ")
	}
	return kinds
}

// appendForm appends the options of rules, with the names of matches and of targets that are not ours.
func appendForm(to []string, rules string) []string {
	previous := ""
	for word := range strings.FieldsSeq(rules) {
		named := previous == "-m" || previous == "-j" && !strings.HasPrefix(word, xtables.DefaultPrefix)
		if strings.HasPrefix(word, "-") || named {
			to = append(to, word)
		}
		previous = word
	}
	return to
}
