package nftables

import (
	"net/netip"

	"github.com/sluice-proxy/sluice/proxy"
)

// order is the backends of a pool by slot. It is immutable once used.
type order []netip.AddrPort

// arrange gives the pool's backends slots, so that as few as possible differ from those before: what stays keeps its
// slot, what is new takes that of what is gone, and what is left over at the end fills holes.
func arrange(before order, pool []proxy.Backend) order {
	if same(before, pool) {
		return before
	}
	missing := make(map[netip.AddrPort]bool, len(pool))
	for _, b := range pool {
		missing[b.Addr] = true
	}
	after := make(order, 0, max(len(before), len(pool)))
	var holes []int
	for i, addr := range before {
		if !missing[addr] {
			holes = append(holes, i)
		}
		delete(missing, addr) // what is there twice is a hole the second time
		after = append(after, addr)
	}
	for _, b := range pool {
		switch {
		case !missing[b.Addr]:
		case len(holes) > 0:
			after[holes[0]], holes = b.Addr, holes[1:]
		default:
			after = append(after, b.Addr)
		}
	}
	for len(holes) > 0 {
		hole, last := holes[len(holes)-1], len(after)-1
		holes = holes[:len(holes)-1]
		after[hole] = after[last] // the holes that are left are before this one, so the last is none
		after = after[:last]
	}
	return after
}

// same tells whether the pool has exactly these backends.
func same(o order, pool []proxy.Backend) bool {
	if len(o) != len(pool) {
		return false
	}
	in := make(map[netip.AddrPort]bool, len(o))
	for _, addr := range o {
		in[addr] = true
	}
	for _, b := range pool {
		if !in[b.Addr] {
			return false
		}
	}
	return len(in) == len(pool)
}
