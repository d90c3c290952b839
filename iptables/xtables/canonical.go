package xtables

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// canonical writes a rule's arguments so that two rules which do the same are equal, whether they are written as input or as
// iptables-save shows them. It knows what rules of ours can hold; of others it changes nothing that matters.
func canonical(f proxy.Family, args string) string {
	words, err := split(args)
	if err != nil {
		return args
	}
	var options []string
	for i := 0; i < len(words); {
		name, value, next := nextOption(words, i)
		i = next
		if o := canonicalOption(f, name, value); o != "" {
			options = append(options, o)
		}
	}
	slices.Sort(options)
	return strings.Join(slices.Compact(options), "\x00")
}

// nextOption reads an option with its "!" and its value, and where the one after it begins.
func nextOption(words []string, i int) (name, value string, next int) {
	for i < len(words) && words[i] == "!" {
		name += "! "
		i++
	}
	if i < len(words) {
		name += words[i]
		i++
	}
	start := i
	for i < len(words) && words[i] != "!" && (i == start && strings.HasSuffix(name, "--comment") || !strings.HasPrefix(words[i], "-")) {
		i++
	}
	return name, strings.Join(words[start:i], " "), i
}

// canonicalOption is empty for what goes without saying.
func canonicalOption(f proxy.Family, name, value string) string {
	switch strings.TrimPrefix(name, "! ") {
	case "-s", "-d":
		if value = canonicalPrefix(f, value); value == "" {
			return ""
		}
	case "--ctstate", "--src-type", "--dst-type":
		states := strings.Split(value, ",")
		slices.Sort(states)
		value = strings.Join(states, ",")
	case "--probability":
		if p, err := strconv.ParseFloat(value, 64); err == nil {
			value = strconv.FormatInt(int64(math.Round(p*(1<<31))), 10) // as the kernel holds it
		}
	case "--xor-mark":
		name, value = "--set-xmark", value+"/0x0"
	case "--reject-with":
		if value == "icmp-port-unreachable" || value == "icmp6-port-unreachable" {
			return ""
		}
	case "--rsource":
		return ""
	case "--mask":
		if value == netip.PrefixFrom(f.Any(), f.Bits()).String() || value == allOnes(f) {
			return ""
		}
	}
	return name + " " + value
}

// canonicalPrefix is empty for all addresses.
func canonicalPrefix(f proxy.Family, value string) string {
	if a, err := netip.ParseAddr(value); err == nil {
		return netip.PrefixFrom(a, a.BitLen()).String()
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return value
	}
	if p.Bits() == 0 && f.Has(p.Addr()) {
		return ""
	}
	return p.Masked().String()
}

// allOnes is the mask that has every client count for itself.
func allOnes(f proxy.Family) string {
	if f == proxy.IPv6 {
		return "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	}
	return "255.255.255.255"
}
