package conntrack

import (
	"context"
	"errors"
	"iter"
	"net/netip"

	"github.com/sluice-proxy/sluice/proxy"
)

// Tuple is one direction of a flow.
type Tuple struct {
	Src, Dst netip.AddrPort
}

// Flow is a UDP flow. It is comparable.
type Flow struct {
	// Original is what the client sent; Reply is what an answer looks like before it is
	// translated back, so Reply.Src is the backend.
	Original, Reply Tuple

	// Zone is the flow's zone, the others that of one direction alone, for rules that separate
	// only this direction. All are 0 in most networks.
	Zone, OriginalZone, ReplyZone uint16

	// DNAT says that a rule chose the backend. Without it the backend is where the client sends to, or was chosen by IPVS.
	DNAT bool

	// ID tells two flows with equal tuples apart, of which one came after the other; 0 is
	// unknown and equals any.
	ID uint32
}

// untranslated tells whether the flow's packets pass as they are.
func (f Flow) untranslated() bool {
	return f.Original.Src == f.Reply.Dst && f.Original.Dst == f.Reply.Src
}

// zoned tells whether the flow is in a zone, of which the rules for Services make none: it belongs to
// other software, such as Open vSwitch, and its addresses mean what that wants.
func (f Flow) zoned() bool { return f.Zone != 0 || f.OriginalZone != 0 || f.ReplyZone != 0 }

// ErrInterrupted says that the table changed in a way that may have hidden some flows from a
// listing.
var ErrInterrupted = errors.New("conntrack listing was interrupted")

// Table is the connection tracking table of a network namespace. It is safe for concurrent use.
type Table interface {
	// Flows yields the UDP flows of a family, in no order, some perhaps twice, without holding
	// them all. An error ends the sequence; when it is ErrInterrupted, what came before is
	// true but perhaps not all.
	Flows(ctx context.Context, family proxy.Family) iter.Seq2[Flow, error]

	// Delete removes exactly these flows and returns how many of them it removed. That a flow
	// is gone, or that another has taken its place, is no error.
	Delete(ctx context.Context, family proxy.Family, flows []Flow) (int, error)
}
