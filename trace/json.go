package trace

import (
	"encoding/json"
	"net/netip"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
)

// JSON writes for programs: an object for each thing that happens, one a line. It is a Sink.
type JSON struct {
	Encoder *json.Encoder
	Names   Names
}

type stepJSON struct {
	Packet  int         `json:"packet"`
	Family  string      `json:"family"`
	Table   string      `json:"table"`
	Chain   string      `json:"chain"`
	Handle  uint64      `json:"handle,omitempty"`
	Rule    string      `json:"rule,omitempty"`
	Verdict string      `json:"verdict"`
	In      string      `json:"in,omitempty"`
	Out     string      `json:"out,omitempty"`
	Header  *headerJSON `json:"header,omitempty"`
}

type headerJSON struct {
	Protocol string         `json:"protocol"`
	From     netip.AddrPort `json:"from"`
	FromName string         `json:"fromName,omitempty"`
	To       netip.AddrPort `json:"to"`
	ToName   string         `json:"toName,omitempty"`
	Flags    string         `json:"flags,omitempty"`
}

// Step implements Sink.
func (j JSON) Step(n int, s nft.Step, rule, in, out string) {
	step := stepJSON{
		Packet: n, Family: s.Family, Table: s.Table, Chain: s.Chain, Handle: s.Rule, Rule: rule, Verdict: s.Verdict, In: in, Out: out,
	}
	if h := s.Header; h != nil {
		step.Header = &headerJSON{h.Protocol.String(), h.From, j.Names[h.From], h.To, j.Names[h.To], tcpFlags(h)}
	}
	_ = j.Encoder.Encode(step)
}

// Lost implements Sink.
func (j JSON) Lost() { _ = j.Encoder.Encode(map[string]bool{"lost": true}) }

type connectionJSON struct {
	Client    netip.AddrPort `json:"client"`
	To        netip.AddrPort `json:"to"`
	ToName    string         `json:"toName,omitempty"`
	Conntrack *trackedJSON   `json:"conntrack,omitempty"`
	IPVS      *balancedJSON  `json:"ipvs,omitempty"`
}

type trackedJSON struct {
	Backend     netip.AddrPort `json:"backend"`
	BackendName string         `json:"backendName,omitempty"`
	SeenAs      netip.AddrPort `json:"seenAs"`
	State       string         `json:"state,omitempty"`
	Answered    bool           `json:"answered"`
	Seconds     int            `json:"forgottenInSeconds"`
}

type balancedJSON struct {
	Backend     netip.AddrPort `json:"backend"`
	BackendName string         `json:"backendName,omitempty"`
	State       string         `json:"state"`
	Seconds     int            `json:"forgottenInSeconds"`
}

// Connection implements Sink.
func (j JSON) Connection(client, to netip.AddrPort, tracked *conntrack.Entry, balanced *kernel.Connection) {
	c := connectionJSON{Client: client, To: to, ToName: j.Names[to]}
	if e := tracked; e != nil {
		c.Conntrack = &trackedJSON{
			e.Reply.Src, j.Names[e.Reply.Src], e.Reply.Dst, e.State, e.Status&conntrack.SeenReply != 0, int(e.Left.Seconds()),
		}
	}
	if b := balanced; b != nil {
		c.IPVS = &balancedJSON{b.Backend, j.Names[b.Backend], b.State, int(b.Left.Seconds())}
	}
	_ = j.Encoder.Encode(map[string]connectionJSON{"connection": c})
}
