// Package conntrack ends the UDP flows that the service proxy no longer allows, and tunes the
// kernel's connection tracking.
//
// The kernel translates the packets of a flow as it translated the first one, for as long as the
// flow has packets. A UDP client that keeps its socket would stay with a backend that is gone, or
// with no translation at all, so such flows are deleted once new rules are in place: the next
// packet is then treated as the first of a new flow.
//
// TCP and SCTP flows are never deleted. Their connections end by themselves when the backend
// goes, and must outlive a change of rules so that backends can be drained.
package conntrack
