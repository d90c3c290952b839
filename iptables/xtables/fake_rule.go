package xtables

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// fakeRule is a rule that the tools would take.
type fakeRule struct {
	text  string   // its words, without the chain
	jump  string   // the chain that it leads to, or ""
	hooks []string // the only built-in chains that may reach it; empty is any
}

// ruleContext is where a rule stands.
type ruleContext struct {
	family       proxy.Family
	table, chain string
}

// extension is a match or a target.
type extension struct {
	table    string   // the only one that it may be used in; "" is any
	hooks    []string // the only built-in chains that may reach it; empty is any
	protocol string   // that -p must give; "" is any
	options  map[string]option
	require  []string // one of them must be given; empty is none
	complete func(given map[string]string) error
}

// option checks its value; nil takes none.
type option func(ruleContext, string) error

// ruleParser reads a rule word by word.
type ruleParser struct {
	ruleContext
	words []string
	given map[string]string // basic options
	used  []*used           // the newest last
	rule  fakeRule
}

// used is an extension in a rule, with its options and their values.
type used struct {
	extension
	name  string
	given map[string]string
}

func parseRule(words []string, at ruleContext) (fakeRule, error) {
	p := ruleParser{ruleContext: at, words: words, given: map[string]string{}}
	for len(p.words) > 0 {
		if err := p.next(); err != nil {
			return fakeRule{}, err
		}
	}
	for _, u := range p.used {
		if err := p.finish(u); err != nil {
			return fakeRule{}, err
		}
	}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	p.rule.text = strings.Join(quoted, " ")
	return p.rule, nil
}

// next reads an option with its value.
func (p *ruleParser) next() error {
	name, err := p.word()
	negated := err == nil && name == "!"
	if negated {
		name, err = p.word()
	}
	if err != nil {
		return err
	}
	if negated && !negatable[name] {
		return fmt.Errorf("unexpected ! before %q", name)
	}
	switch name {
	case "-m":
		return p.match()
	case "-j", "-g":
		return p.target(name)
	}
	if check, ok := basic[name]; ok {
		return p.option(p.given, name, check)
	}
	for _, u := range slices.Backward(p.used) {
		if check, ok := u.options[name]; ok {
			return p.option(u.given, name, check)
		}
	}
	return fmt.Errorf("unknown option %q", name)
}

var errEnd = errors.New("rule ends too early")

func (p *ruleParser) word() (string, error) {
	if len(p.words) == 0 {
		return "", errEnd
	}
	word := p.words[0]
	p.words = p.words[1:]
	return word, nil
}

func (p *ruleParser) value(name string) (string, error) {
	value, err := p.word()
	if err != nil {
		return "", fmt.Errorf("option %q requires an argument: %w", name, err)
	}
	return value, nil
}

func (p *ruleParser) option(given map[string]string, name string, check option) error {
	if _, ok := given[name]; ok {
		return fmt.Errorf("multiple %s flags not allowed", name)
	}
	if check == nil {
		given[name] = ""
		return nil
	}
	value, err := p.value(name)
	if err != nil {
		return err
	}
	given[name] = value
	if err := check(p.ruleContext, value); err != nil {
		return fmt.Errorf("bad value %q for option %q: %w", value, name, err)
	}
	return nil
}

func (p *ruleParser) match() error {
	name, err := p.value("-m")
	if err != nil {
		return err
	}
	e, ok := matches[name]
	if !ok {
		return fmt.Errorf("no match '%s'", name)
	}
	p.used = append(p.used, &used{extension: e, name: name, given: map[string]string{}})
	return nil
}

func (p *ruleParser) target(flag string) error {
	name, err := p.value(flag)
	if err != nil {
		return err
	}
	if _, ok := p.given["-j"]; ok {
		return errors.New("multiple -j flags not allowed")
	}
	p.given["-j"] = name
	e, ok := targets[name]
	if !ok {
		p.rule.jump = name
		return nil
	}
	if flag == "-g" || e.table != "" && e.table != p.table || name == "DROP" && p.table == "nat" {
		return fmt.Errorf("target %s is not allowed here", name)
	}
	p.rule.hooks = e.hooks
	p.used = append(p.used, &used{extension: e, name: name, given: map[string]string{}})
	return nil
}

// finish checks an extension when the whole rule is known.
func (p *ruleParser) finish(u *used) error {
	if u.protocol != "" && p.given["-p"] != u.protocol {
		return fmt.Errorf("%s requires -p %s", u.name, u.protocol)
	}
	if len(u.require) > 0 && !slices.ContainsFunc(u.require, func(o string) bool { _, ok := u.given[o]; return ok }) {
		return fmt.Errorf("%s requires one of %v", u.name, u.require)
	}
	switch {
	case u.name == "DNAT" && hasPort(u.given["--to-destination"]) && !slices.Contains([]string{"tcp", "udp", "sctp"}, p.given["-p"]):
		return errors.New("need TCP, UDP or SCTP with port specification")
	case u.name == "REJECT" && u.given["--reject-with"] == "tcp-reset" && p.given["-p"] != "tcp":
		return errors.New("tcp-reset requires -p tcp")
	case u.complete != nil:
		return u.complete(u.given)
	}
	return nil
}

// negatable options may stand behind "!".
var negatable = map[string]bool{
	"-s": true, "-d": true, "-p": true, "-i": true, "-o": true, "--dport": true, "--sport": true, "--mark": true,
	"--src-type": true, "--dst-type": true, "--ctstate": true, "--mode": true, "--probability": true,
	"--set": true, "--rcheck": true, "--update": true, "--remove": true,
}

// basic options belong to no extension.
var basic = map[string]option{
	"-s": address, "-d": address, "-p": protocol, "-i": inInterface, "-o": outInterface,
}

func address(at ruleContext, value string) error {
	addr, bits, found := strings.Cut(value, "/")
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return err
	}
	if !at.family.Has(a) {
		return fmt.Errorf("not an address of %v", at.family)
	}
	if found {
		return number(0, uint64(at.family.Bits()))(at, bits)
	}
	return nil
}

func protocol(at ruleContext, value string) error {
	icmp := "icmp"
	if at.family == proxy.IPv6 {
		icmp = "ipv6-icmp"
	}
	return oneOf("tcp", "udp", "sctp", "all", icmp)(at, value)
}

func inInterface(at ruleContext, value string) error {
	if at.chain == "OUTPUT" || at.chain == "POSTROUTING" {
		return fmt.Errorf("no -i in %s", at.chain)
	}
	return interfaceName(value)
}

func outInterface(at ruleContext, value string) error {
	if at.chain == "INPUT" || at.chain == "PREROUTING" {
		return fmt.Errorf("no -o in %s", at.chain)
	}
	return interfaceName(value)
}

func interfaceName(value string) error {
	if len(value) > 15 {
		return errors.New("longer than 15 bytes")
	}
	return nil
}

func number(low, high uint64) option {
	return func(_ ruleContext, value string) error {
		n, err := strconv.ParseUint(value, 0, 64)
		if err == nil && (n < low || n > high) {
			err = fmt.Errorf("out of range %d to %d", low, high)
		}
		return err
	}
}

func oneOf(values ...string) option {
	return func(_ ruleContext, value string) error {
		if !slices.Contains(values, value) {
			return fmt.Errorf("not one of %v", values)
		}
		return nil
	}
}

func listOf(values ...string) option {
	return func(at ruleContext, list string) error {
		for value := range strings.SplitSeq(list, ",") {
			if err := oneOf(values...)(at, value); err != nil {
				return err
			}
		}
		return nil
	}
}

func ports(at ruleContext, value string) error {
	from, to, isRange := strings.Cut(value, ":")
	if err := number(0, 65535)(at, from); err != nil {
		return err
	}
	if !isRange {
		return nil
	}
	if err := number(0, 65535)(at, to); err != nil {
		return err
	}
	low, _ := strconv.ParseUint(from, 0, 16)
	high, _ := strconv.ParseUint(to, 0, 16)
	if low > high {
		return errors.New("invalid portrange (min > max)")
	}
	return nil
}

func masked(at ruleContext, value string) error {
	for part := range strings.SplitSeq(value, "/") {
		if err := number(0, 1<<32-1)(at, part); err != nil {
			return err
		}
	}
	if strings.Count(value, "/") > 1 {
		return errors.New("two masks")
	}
	return nil
}

func fraction(_ ruleContext, value string) error {
	f, err := strconv.ParseFloat(value, 64)
	if err == nil && !(f >= 0 && f <= 1) {
		err = errors.New("out of range 0 to 1")
	}
	return err
}

func anything(ruleContext, string) error { return nil }

// destination is ADDRESS, ADDRESS:PORT or :PORT.
func destination(at ruleContext, value string) error {
	addr := value
	if hasPort(value) {
		colon := strings.LastIndexByte(value, ':')
		addr = strings.TrimSuffix(strings.TrimPrefix(value[:colon], "["), "]")
		if err := number(1, 65535)(at, value[colon+1:]); err != nil {
			return err
		}
		if addr == "" {
			return nil
		}
	}
	a, err := netip.ParseAddr(addr)
	if err == nil && !at.family.Has(a) {
		err = fmt.Errorf("not an address of %v", at.family)
	}
	return err
}

// hasPort tells whether a DNAT destination has one.
func hasPort(destination string) bool {
	return strings.Contains(destination, "]:") ||
		strings.Count(destination, ":") == 1
}
