package track

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

var errZone = errors.New("an address with a zone")

// parseAddr reads an address as leniently as the API server once did: blanks around it, leading zeros
// in decimal parts, and IPv4 in IPv6 notation, which is IPv4.
func parseAddr(s string) (netip.Addr, error) {
	addr, err := parseMapped(s)
	return addr.Unmap(), err
}

// parsePrefix reads a prefix as leniently as parseAddr does, and masks it.
func parsePrefix(s string) (netip.Prefix, error) {
	addrPart, bitsPart, _ := strings.Cut(strings.TrimSpace(s), "/")
	addr, err := parseMapped(addrPart)
	if err != nil {
		return netip.Prefix{}, err
	}
	bits, err := strconv.ParseUint(bitsPart, 10, 8)
	if err != nil {
		return netip.Prefix{}, err
	}
	length := int(bits)
	if addr.Is4In6() && length >= 96 {
		addr, length = addr.Unmap(), length-96
	}
	return addr.Prefix(length)
}

func parseMapped(s string) (netip.Addr, error) {
	s = strings.TrimSpace(s)
	addr, err := netip.ParseAddr(s)
	if err != nil {
		addr, err = netip.ParseAddr(withoutLeadingZeros(s))
	}
	if err == nil && addr.Zone() != "" {
		return netip.Addr{}, errZone
	}
	return addr, err
}

// withoutLeadingZeros shortens the decimal parts of an address, which netip refuses to read when they
// start with a zero because some systems take such numbers for octal ones.
func withoutLeadingZeros(s string) string {
	dotted := strings.LastIndexByte(s, ':') + 1
	parts := strings.Split(s[dotted:], ".")
	if len(parts) != 4 {
		return s
	}
	for i, part := range parts {
		if short := strings.TrimLeft(part, "0"); short != "" || part == "" {
			parts[i] = short
		} else {
			parts[i] = "0"
		}
	}
	return s[:dotted] + strings.Join(parts, ".")
}
