package ipvs

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
)

// The kernel tells nobody when virtual servers change. So a few are looked at again and again, all in turn: what that costs
// does not depend on how many there are, only how long it takes until each had its turn.
const (
	auditInterval = 2 * time.Second
	auditObjects  = 25 // virtual servers and backends that are looked at each time
)

// looker looks at virtual servers while others may change them.
type looker interface {
	timeoutLooker
	See(ctx context.Context, id kernel.ID) (*kernel.Sight, error)
}

// auditor compares what the kernel holds with what was written.
type auditor struct {
	d        *dataplane
	look     looker
	settings *settingsWatch // nil: another one looks at them

	turn   []kernel.ID // those that come next
	credit int         // objects that may be looked at
}

// audit looks at settings and the next few virtual servers, and says what is wrong with one of them, or "". While they are being changed
// it does not look.
func (a *auditor) audit(ctx context.Context) (string, error) {
	if !a.d.busy.TryLock() {
		return "", nil
	}
	defer a.d.busy.Unlock()
	if a.d.held == nil {
		return "", nil
	}
	if reason, err := a.sentinel(ctx); reason != "" || err != nil {
		return reason, err
	}
	if reason, err := a.settings.wrong(ctx, a.look); reason != "" || err != nil {
		return reason, err
	}
	// What a large virtual server costs too much, later ones pay.
	a.credit = min(a.credit, 0) + auditObjects
	for range len(a.turn) + len(a.d.held.servers) { // the rest of a round, and a whole one
		if a.credit <= 0 {
			break
		}
		if reason, err := a.next(ctx); reason != "" || err != nil {
			return reason, err
		}
	}
	return "", nil
}

// sentinel looks whether all virtual servers are gone: that matters most, and one look is enough to see it.
func (a *auditor) sentinel(ctx context.Context) (string, error) {
	sight, err := a.look.See(ctx, sentinelID(a.d.cfg))
	if err != nil || sight != nil {
		return "", err
	}
	return "our virtual servers are gone", nil
}

// next looks at one virtual server.
func (a *auditor) next(ctx context.Context) (string, error) {
	if len(a.turn) == 0 {
		a.turn = slices.Collect(maps.Keys(a.d.held.servers))
	}
	id := a.turn[0]
	a.turn = a.turn[1:]
	s := a.d.held.servers[id]
	if s == nil || id == sentinelID(a.d.cfg) {
		return "", nil // it went meanwhile, or was looked at
	}
	sight, err := a.look.See(ctx, id)
	if err != nil {
		return "", err
	}
	a.credit--
	if sight != nil {
		a.credit -= len(sight.Backends)
	}
	if what := s.differs(sight); what != "" {
		return fmt.Sprintf("virtual server %v of %v %s", id, s.owner, what), nil
	}
	return "", nil
}

// differs says how a virtual server in the kernel is not as it was written, or "".
func (s *server) differs(now *kernel.Sight) string {
	if now == nil {
		return "is gone"
	}
	if now.Server != s.Server {
		return "was changed"
	}
	there := make(map[netip.AddrPort]bool, len(now.Backends))
	for _, b := range now.Backends {
		there[b.Addr] = true
		switch was, ours := s.dests[b.Addr]; {
		case !ours:
			return fmt.Sprintf("has a backend %v that is not ours", b.Addr)
		case b.Weight != was.weight:
			return fmt.Sprintf("has backend %v with weight %d instead of %d", b.Addr, b.Weight, was.weight)
		case b.Altered && b.Weight > 0:
			return fmt.Sprintf("has backend %v with other settings", b.Addr)
		}
	}
	for addr := range s.dests {
		if !there[addr] {
			return fmt.Sprintf("has lost backend %v", addr)
		}
	}
	return ""
}
