package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// packet is what a rule looks at.
type packet struct {
	source   netip.Addr
	to       netip.AddrPort
	protocol proxy.Protocol
}

// table holds the rules of an iptables table, as iptables-save prints them, by chain.
type table map[string][]rule

// rule is a rule split into words; a quoted text is one.
type rule []string

// rules reads the node's nat table.
func (s *stage) rules() (table, error) {
	text, err := s.save("iptables", "-t", "nat")
	return parse(text), err
}

// traces are all lines of the node's tables that speak of Sluice.
func (s *stage) traces() ([]string, error) {
	v4, err4 := s.save("iptables")
	v6, err6 := s.save("ip6tables")
	var traces []string
	for line := range strings.Lines(v4 + v6) {
		if strings.Contains(line, "SLUICE") {
			traces = append(traces, strings.TrimSpace(line))
		}
	}
	return traces, errors.Join(err4, err6)
}

// save is what both backends of iptables hold: Sluice may use either.
func (s *stage) save(tool string, args ...string) (string, error) {
	nft, nftErr := s.Node.Run(tool+"-nft-save", args...)
	legacy, legacyErr := s.Node.Run(tool+"-legacy-save", args...)
	if nftErr != nil && legacyErr != nil {
		return "", errors.Join(nftErr, legacyErr)
	}
	return nft + legacy, nil
}

// parse reads the output of iptables-save.
func parse(save string) table {
	t := table{}
	for line := range strings.Lines(save) {
		if words := split(line); len(words) > 2 && words[0] == "-A" {
			t[words[1]] = append(t[words[1]], words[2:])
		}
	}
	return t
}

// split splits a line into words. iptables-save quotes a text with blanks.
func split(line string) []string {
	var words []string
	for i, part := range strings.Split(strings.TrimSpace(line), `"`) {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

// walk lists the rules that a new connection's first packet passes in PREROUTING and that match it,
// or may by chance.
func (t table) walk(p packet) []string {
	var path []string
	t.visit("PREROUTING", p, 0, &path)
	return path
}

// visit tells whether the packet's fate is settled in the chain.
func (t table) visit(chain string, p packet, depth int, path *[]string) bool {
	for _, r := range t[chain] {
		if !r.matches(p) {
			continue
		}
		*path = append(*path, fmt.Sprintf("%-34s%s", strings.Repeat(" ", depth)+chain, r.brief()))
		target := r.after("-j")
		certain := r.after("--probability") == ""
		switch {
		case target == "RETURN":
			return false
		case target == "DNAT" && certain:
			return true
		case len(t[target]) > 0:
			if t.visit(target, p, depth+1, path) && certain {
				return true
			}
		}
	}
	return false
}

// after is the word that follows the given one.
func (r rule) after(word string) string {
	for i := range len(r) - 1 {
		if r[i] == word {
			return r[i+1]
		}
	}
	return ""
}

// conditions are the options of rules that the demo understands. Its packet is not sent to an address of
// the node's, nor by one.
var conditions = map[string]func(value string, p packet) bool{
	"-s":         func(value string, p packet) bool { return contains(value, p.source) },
	"-d":         func(value string, p packet) bool { return contains(value, p.to.Addr()) },
	"-p":         func(value string, p packet) bool { return value == p.protocol.String() },
	"--dport":    func(value string, p packet) bool { return covers(value, p.to.Port()) },
	"--src-type": func(value string, _ packet) bool { return value != "LOCAL" },
	"--dst-type": func(value string, _ packet) bool { return value != "LOCAL" },
}

// matches tells whether the conditions of a rule hold for a packet.
func (r rule) matches(p packet) bool {
	for i := range len(r) - 1 {
		holds, known := conditions[r[i]]
		if !known {
			continue
		}
		inverted := i > 0 && r[i-1] == "!"
		if holds(r[i+1], p) == inverted {
			return false
		}
	}
	return true
}

func contains(prefix string, a netip.Addr) bool {
	p, err := netip.ParsePrefix(prefix)
	return err == nil && p.Contains(a)
}

// covers tells whether a port, or range of ports, holds the port.
func covers(ports string, port uint16) bool {
	low, high, found := strings.Cut(ports, ":")
	if !found {
		high = low
	}
	first, err1 := strconv.Atoi(low)
	last, err2 := strconv.Atoi(high)
	return err1 == nil && err2 == nil && first <= int(port) && int(port) <= last
}

// brief is the rule without its comment and the names of the matches that its options imply.
func (r rule) brief() string {
	var words []string
	for i := 0; i < len(r); i++ {
		switch {
		case r[i] == "-m":
			i++
		case r[i] == "--comment":
			i++
		case r[i] == "--mode":
			i++
		case r[i] == "--probability" && i+1 < len(r):
			i++
			words = append(words, "probability "+round(r[i]))
		default:
			words = append(words, r[i])
		}
	}
	if r.after("-j") == "MARK" {
		words = append(words, " (masquerade)")
	}
	return strings.Join(words, " ")
}

// round shortens a probability.
func round(text string) string {
	p, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	return strconv.FormatFloat(p, 'f', 2, 64)
}
