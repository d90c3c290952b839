package conntrack

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/sluice-proxy/sluice/proxy"
)

// HandOver ends the UDP flows of a family that IPVS leads to certain backends, and tells how many: their next packets begin
// flows, which rules can translate. A flow that is known is never translated anew. Without backends it asks for no flows.
func HandOver(ctx context.Context, table Table, family proxy.Family, backends map[netip.AddrPort]bool) (int, error) {
	if len(backends) == 0 {
		return 0, nil
	}
	var led []Flow
	for f, err := range table.Flows(ctx, family) {
		if err != nil {
			return 0, fmt.Errorf("list %v UDP flows: %w", family, err)
		}
		if !f.DNAT && !f.zoned() && f.Reply.Src != f.Original.Dst && backends[f.Reply.Src] {
			led = append(led, f)
		}
	}
	n, err := table.Delete(ctx, family, led)
	if err != nil {
		return n, fmt.Errorf("delete %d %v UDP flows: %w", len(led), family, err)
	}
	return n, nil
}
