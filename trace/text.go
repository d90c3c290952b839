package trace

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Names say what addresses are, such as frontends and endpoints of Services.
type Names map[netip.AddrPort]string

// of is an address, and what it is.
func (n Names) of(a netip.AddrPort) string {
	if name := n[a]; name != "" {
		return fmt.Sprintf("%v (%s)", a, name)
	}
	return a.String()
}

// Text writes for people, and leaves out where chains end and what was just said. It is a Sink.
type Text struct {
	W     io.Writer
	Names Names

	headers map[int]string // that were written last, by packet
}

// NewText makes a Text.
func NewText(w io.Writer, names Names) *Text { return &Text{w, names, map[int]string{}} }

// Columns are as wide as what usually is in them.
const (
	placeWidth   = 34
	verdictWidth = 22
)

// Step implements Sink.
func (t *Text) Step(n int, s nft.Step, rule, in, out string) {
	if s.Header != nil {
		if header := t.header(s.Header) + through(in, out); header != t.headers[n] {
			t.headers[n] = header
			_, _ = fmt.Fprintf(t.W, "#%d %s\n", n, header)
		}
	}
	if s.Rule == 0 && !strings.HasPrefix(s.Verdict, "policy") {
		return
	}
	line := fmt.Sprintf("#%d   %-*s %-*s %s", n, placeWidth, s.Family+" "+s.Table+" "+s.Chain, verdictWidth, s.Verdict, rule)
	_, _ = fmt.Fprintln(t.W, strings.TrimRight(line, " "))
}

func (t *Text) header(h *nft.Header) string {
	text := fmt.Sprintf("%s > %s %v", t.Names.of(h.From), t.Names.of(h.To), h.Protocol)
	if flags := tcpFlags(h); flags != "" {
		text += " " + flags
	}
	return text
}

func through(in, out string) string {
	var text string
	if in != "" {
		text += ", in " + in
	}
	if out != "" {
		text += ", out " + out
	}
	return text
}

// tcpFlags names those of a TCP packet.
func tcpFlags(h *nft.Header) string {
	if h.Protocol != proxy.TCP {
		return ""
	}
	var set []string
	for i, name := range []string{"fin", "syn", "rst", "psh", "ack", "urg"} {
		if h.TCPFlags&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, ",")
}

// Lost implements Sink.
func (t *Text) Lost() { _, _ = fmt.Fprintln(t.W, "… the kernel had more to tell than could be read") }

// Connection implements Sink.
func (t *Text) Connection(client, to netip.AddrPort, tracked *conntrack.Entry, balanced *kernel.Connection) {
	_, _ = fmt.Fprintf(t.W, "connection %v > %s\n", client, t.Names.of(to))
	if tracked == nil {
		_, _ = fmt.Fprintln(t.W, "  conntrack  unknown: its packets were refused or dropped, or are not tracked")
	} else {
		_, _ = fmt.Fprintf(t.W, "  conntrack  %s\n", t.tracked(tracked))
	}
	if balanced != nil {
		_, _ = fmt.Fprintf(t.W, "  ipvs       to %s, %s, forgotten in %v\n", t.Names.of(balanced.Backend), balanced.State, balanced.Left)
	}
}

func (t *Text) tracked(e *conntrack.Entry) string {
	parts := []string{"goes where it was sent to"}
	if e.Reply.Src != e.Original.Dst {
		parts[0] = "to " + t.Names.of(e.Reply.Src)
	}
	if e.Reply.Dst != e.Original.Src {
		parts = append(parts, fmt.Sprintf("which sees %v as the client", e.Reply.Dst))
	}
	if e.State != "" {
		parts = append(parts, e.State)
	}
	if e.Status&conntrack.SeenReply == 0 {
		parts = append(parts, "not answered")
	}
	return strings.Join(append(parts, fmt.Sprintf("forgotten in %v", e.Left)), ", ")
}
