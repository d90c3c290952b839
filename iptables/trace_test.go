package iptables

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// tracer says what the rules that a Fake holds do to the first packet of a connection.
type tracer struct {
	t     *testing.T
	fake  *xtables.Fake
	node  *proxy.Node
	local []netip.Addr // the node's own addresses

	// remembered are names of lists of recent clients that know the packet's source.
	remembered map[string]bool
}

// packet is the first one of a connection. In is empty for those of the node's own processes.
type packet struct {
	src      netip.Addr
	in       string
	dst      netip.AddrPort
	protocol proxy.Protocol
	marked   bool // by somebody else
	replies  bool // it belongs to a connection that exists
}

// fate is a possible outcome with its probability: "ADDRESS", "ADDRESS masquerade", "reject", "drop", or
// "pass", with nobody having touched the packet.
type fates map[string]float64

func (f fates) String() string {
	var parts []string
	for _, outcome := range slices.Sorted(maps.Keys(f)) {
		parts = append(parts, fmt.Sprintf("%s %.3f", outcome, f[outcome]))
	}
	return strings.Join(parts, ", ")
}

// outcomes are the fates without their probabilities.
func (f fates) outcomes() []string { return slices.Sorted(maps.Keys(f)) }

// uniform tells whether all are equally likely.
func (f fates) uniform() bool {
	for _, p := range f {
		if math.Abs(p-1/float64(len(f))) > 1e-6 {
			return false
		}
	}
	return true
}

// flow is a packet on its way.
type flow struct {
	packet
	mark        uint32
	translated  bool
	masqueraded bool
	chance      float64
	verdict     string // of the hook it is in; empty: still on its way
}

// trace follows a packet through all hooks.
func (tr *tracer) trace(p packet) fates {
	tr.t.Helper()
	start := flow{packet: p, chance: 1}
	if p.marked {
		start.mark = tr.node.MasqueradeMark
	}
	result := fates{}
	for _, f := range tr.through([]flow{start}, tr.hooks(p)) {
		result[f.outcome()] += f.chance
	}
	return result
}

type hook struct{ table, chain string }

// hooks is the way from where p enters until its destination is settled.
func (tr *tracer) hooks(p packet) []hook {
	first := []hook{{nat, "PREROUTING"}}
	if p.in == "" {
		first = []hook{{nat, "OUTPUT"}, {filter, "OUTPUT"}}
	}
	return append(first, hook{filter, "INPUT"}, hook{filter, "FORWARD"}, hook{nat, "POSTROUTING"})
}

func (tr *tracer) through(flows []flow, hooks []hook) []flow {
	for _, h := range hooks {
		var next []flow
		for _, f := range flows {
			if f.refused() || !tr.passes(f, h) {
				next = append(next, f)
				continue
			}
			for _, g := range tr.chain(h.table, h.chain, f, 0) {
				if !g.refused() {
					g.verdict = ""
				}
				next = append(next, g)
			}
		}
		flows = next
	}
	return flows
}

// passes tells whether f comes through a hook.
func (tr *tracer) passes(f flow, h hook) bool {
	toNode := tr.isLocal(f.dst.Addr())
	switch h.chain {
	case "INPUT":
		return toNode
	case "FORWARD":
		return !toNode && f.in != ""
	case "POSTROUTING":
		return !toNode || f.in == ""
	}
	return true
}

func (tr *tracer) isLocal(a netip.Addr) bool {
	return slices.Contains(tr.local, a) || tr.node.Family.Loopback().Contains(a)
}

func (f flow) refused() bool { return f.verdict == "drop" || f.verdict == "reject" }

func (f flow) outcome() string {
	switch {
	case f.refused():
		return f.verdict
	case !f.translated:
		return "pass"
	case f.masqueraded:
		return f.dst.String() + " masquerade"
	}
	return f.dst.String()
}

// chain runs f through a chain from its i-th rule. A flow without verdict came out at the end.
func (tr *tracer) chain(table, name string, f flow, i int) []flow {
	rules := tr.fake.Rules(table, name)
	if rules == nil {
		tr.t.Fatalf("jump to chain %s of table %s, which does not exist", name, table)
	}
	for ; i < len(rules); i++ {
		r := tr.parse(rules[i])
		hit := r.chance(f)
		if hit == 0 {
			continue
		}
		taken := f
		taken.chance *= hit
		out := tr.goOn(table, name, tr.hit(table, r, taken), i+1)
		if f.chance *= 1 - hit; hit < 1 {
			out = append(out, tr.chain(table, name, f, i+1)...)
		}
		return out
	}
	return []flow{f}
}

const (
	returned = "return"
	goesOn   = "go on"
)

// goOn lets flows that a rule did not settle proceed with the i-th.
func (tr *tracer) goOn(table, name string, flows []flow, i int) []flow {
	var done []flow
	for _, f := range flows {
		switch f.verdict {
		case goesOn:
			f.verdict = ""
			done = append(done, tr.chain(table, name, f, i)...)
		case returned:
			f.verdict = ""
			done = append(done, f)
		default:
			done = append(done, f)
		}
	}
	return done
}

// hit executes a rule's target.
func (tr *tracer) hit(table string, r rule, f flow) []flow {
	f.verdict = goesOn
	switch r.target {
	case "":
	case "RETURN":
		f.verdict = returned
	case "ACCEPT":
		f.verdict = "accept"
	case "DROP":
		f.verdict = "drop"
	case "REJECT":
		f.verdict = "reject"
	case "MARK":
		f.mark = r.mark(f.mark)
	case "DNAT":
		f.dst, f.translated, f.verdict = r.to, true, "accept"
	case "MASQUERADE":
		f.masqueraded, f.verdict = true, "accept"
	default:
		flows := tr.chain(table, r.target, f.with(""), 0)
		for i := range flows {
			if flows[i].verdict == "" {
				flows[i].verdict = goesOn
			}
		}
		return flows
	}
	return []flow{f}
}

func (f flow) with(verdict string) flow {
	f.verdict = verdict
	return f
}

// rule is a parsed one.
type rule struct {
	chance func(f flow) float64
	target string
	mark   func(uint32) uint32
	to     netip.AddrPort
}

// parse reads a rule. What it does not know fails the test.
func (tr *tracer) parse(text string) rule {
	tr.t.Helper()
	words := splitRule(text)
	var tests []func(f flow) float64
	add := func(not bool, test func(f flow) bool) {
		tests = append(tests, func(f flow) float64 {
			if test(f) != not {
				return 1
			}
			return 0
		})
	}
	var r rule
	var list string
	not := false
	for i := 0; i < len(words); i++ {
		word := words[i]
		next := func() string {
			if i++; i >= len(words) {
				tr.t.Fatalf("rule %q ends early", text)
			}
			return words[i]
		}
		inverted := not
		not = false
		switch word {
		case "!":
			not = true
		case "-m", "--comment":
			next()
		case "--rsource", "--reap", "--random-fully":
		case "--mode":
			if mode := next(); mode != "random" {
				tr.t.Fatalf("rule %q: mode %q", text, mode)
			}
		case "-s":
			p := tr.prefix(next())
			add(inverted, func(f flow) bool { return p.Contains(f.src) })
		case "-d":
			p := tr.prefix(next())
			add(inverted, func(f flow) bool { return p.Contains(f.dst.Addr()) })
		case "-i":
			name := next()
			add(inverted, func(f flow) bool {
				if prefix, wild := strings.CutSuffix(name, "+"); wild {
					return strings.HasPrefix(f.in, prefix)
				}
				return f.in == name
			})
		case "-p":
			protocol := next()
			add(inverted, func(f flow) bool { return f.protocol.String() == protocol })
		case "--dport":
			low, high, ranged := strings.Cut(next(), ":")
			if !ranged {
				high = low
			}
			from, to := tr.number(low), tr.number(high)
			add(inverted, func(f flow) bool { return int(f.dst.Port()) >= from && int(f.dst.Port()) <= to })
		case "--src-type", "--dst-type":
			if kind := next(); kind != "LOCAL" {
				tr.t.Fatalf("rule %q: address type %q", text, kind)
			}
			add(inverted, func(f flow) bool {
				if word == "--src-type" {
					return tr.isLocal(f.src)
				}
				return tr.isLocal(f.dst.Addr())
			})
		case "--ctstate":
			states := strings.Split(next(), ",")
			add(inverted, func(f flow) bool {
				state := "NEW"
				if f.replies {
					state = "ESTABLISHED"
				}
				return slices.Contains(states, state) || f.translated && slices.Contains(states, "DNAT")
			})
		case "--mark":
			value, mask := tr.masked(next())
			add(inverted, func(f flow) bool { return f.mark&mask == value })
		case "--probability":
			p, err := strconv.ParseFloat(next(), 64)
			if err != nil {
				tr.t.Fatalf("rule %q: %v", text, err)
			}
			tests = append(tests, func(flow) float64 { return p })
		case "--name":
			list = next()
		case "--set":
		case "--rcheck":
			add(false, func(flow) bool { return tr.remembered[list] })
		case "--seconds":
			tr.number(next())
		case "-j":
			r.target = next()
		case "--set-xmark":
			value, mask := tr.masked(next())
			r.mark = func(m uint32) uint32 { return m&^mask ^ value }
		case "--xor-mark":
			value, _ := tr.masked(next() + "/0")
			r.mark = func(m uint32) uint32 { return m ^ value }
		case "--to-destination":
			to, err := netip.ParseAddrPort(next())
			if err != nil {
				tr.t.Fatalf("rule %q: %v", text, err)
			}
			r.to = to
		default:
			tr.t.Fatalf("rule %q: do not know %q", text, word)
		}
	}
	r.chance = func(f flow) float64 {
		all := 1.0
		for _, test := range tests {
			all *= test(f)
		}
		return all
	}
	return r
}

func (tr *tracer) prefix(s string) netip.Prefix {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		tr.t.Fatalf("no address: %q", s)
	}
	return netip.PrefixFrom(a, a.BitLen())
}

func (tr *tracer) number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		tr.t.Fatalf("no number: %q", s)
	}
	return n
}

func (tr *tracer) masked(s string) (value, mask uint32) {
	v, m, _ := strings.Cut(s, "/")
	parse := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 0, 32)
		if err != nil {
			tr.t.Fatalf("no mark: %q", s)
		}
		return uint32(n)
	}
	return parse(v), parse(m)
}

// splitRule cuts a rule into words; only comments are quoted.
func splitRule(text string) []string {
	var words []string
	for i, part := range strings.Split(text, `"`) {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}
