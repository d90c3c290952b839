package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// shown is how many endpoints the text has: it should fit on a screen.
const shown = 20

// WriteText writes an answer for people.
func WriteText(w io.Writer, a Answer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(subject, format string, args ...any) { fmt.Fprintf(t, subject+"\t"+format+"\n", args...) }
	line("packet", "%v", a.Packet)
	line("source", "%v: %s", a.Source, a.SourceWhy)
	if a.Frontend != nil {
		line("frontend", "%s", frontendText(a.Port, a.Frontend))
	}
	line("fate", "%v: %s", a.Fate, a.Why)
	if a.Fate == Forwarded {
		line("masquerade", "%s: %s", yesNo(a.masquerades()), a.MasqueradeWhy)
		line("affinity", "%s", affinityText(a))
	}
	if a.Kernel != nil {
		line("kernel", "%s", a.Kernel.verdict())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := writeEndpoints(w, a); err != nil {
		return err
	}
	return a.Kernel.write(w)
}

func frontendText(port *proxy.ServicePort, f *proxy.Frontend) string {
	at := f.Addr.String()
	if f.Kind == proxy.NodePort {
		at = fmt.Sprintf("port %d of the node", f.Addr.Port())
	}
	text := fmt.Sprintf("%s/%v, %v of %v", at, port.Name.Protocol, f.Kind, port.Name)
	if f.Allowed != nil {
		text += fmt.Sprintf(", for %s alone", prefixes(f.Allowed))
	}
	return text
}

func prefixes(list []netip.Prefix) string {
	var texts []string
	for _, p := range list {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}

func affinityText(a Answer) string {
	if a.Affinity == 0 {
		return "none: each connection may go to another backend"
	}
	text := fmt.Sprintf("a client keeps its backend for %v after its latest new connection", a.Affinity)
	switch {
	case a.Kernel == nil || a.Kernel.Err != nil:
	case a.Kernel.Keeps.IsValid():
		text += fmt.Sprintf("; this one has %v", a.Kernel.Keeps)
	default:
		text += "; this one has none yet"
	}
	return text
}

// masquerades tells whether a backend that is not the client itself sees an address of the node.
func (a Answer) masquerades() bool { return a.Frontend.Routes[a.Source].Masquerade }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// writeEndpoints writes a table of the endpoints, those that are used first.
func writeEndpoints(w io.Writer, a Answer) error {
	list := a.endpoints()
	if len(list) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nENDPOINT\tNODE\tUSED\tWHY")
	for _, e := range list[:min(shown, len(list))] {
		fmt.Fprintf(t, "%v\t%s\t%s\t%s\n", e.Addr, e.Node, yesNo(e.Used), e.Why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := len(list) - shown; more > 0 {
		_, err := fmt.Fprintf(w, "… and %d more, which the JSON form has\n", more)
		return err
	}
	return nil
}

// Endpoint is an endpoint in an answer's written forms.
type Endpoint struct {
	Addr       netip.AddrPort `json:"address"`
	Node       string         `json:"node,omitempty"`
	Used       bool           `json:"used"`
	Why        string         `json:"why"`
	Masquerade bool           `json:"masquerade,omitempty"`
}

// endpoints are the candidates, or if they are not known the backends; those that are used come first.
func (a Answer) endpoints() []Endpoint {
	backends := make(map[netip.AddrPort]Backend, len(a.Backends))
	for _, b := range a.Backends {
		backends[b.Addr] = b
	}
	if a.Candidates == nil {
		var list []Endpoint
		for _, b := range a.Backends {
			list = append(list, Endpoint{Addr: b.Addr, Used: true, Why: special("in the pool", b), Masquerade: b.Masquerade})
		}
		return list
	}
	var used, others []Endpoint
	for _, c := range a.Candidates {
		b, serves := backends[c.Addr]
		e := a.endpoint(c)
		if e.Used = e.Used && serves; e.Used {
			e.Why, e.Masquerade = special(e.Why, b), b.Masquerade
			used = append(used, e)
		} else {
			others = append(others, e)
		}
	}
	return append(used, others...)
}

func (a Answer) endpoint(c policy.Candidate) Endpoint {
	j := c.Pools[a.Pool]
	return Endpoint{Addr: c.Addr, Node: c.NodeName, Used: j.Used, Why: j.Why}
}

// special adds what sets a backend apart from the others.
func special(why string, b Backend) string {
	switch {
	case b.Hairpin:
		return why + "; it is the client itself, so it sees an address of the node"
	case b.Stays:
		return why + "; it is in the node's own network, so it sees the client's address"
	}
	return why
}

// answerJSON is the written form of an Answer for programs.
type answerJSON struct {
	From       netip.Addr     `json:"from"`
	Interface  string         `json:"interface,omitempty"`
	To         netip.AddrPort `json:"to"`
	Protocol   string         `json:"protocol"`
	Source     reason         `json:"source"`
	Service    string         `json:"service,omitempty"` // namespace/name:port
	Frontend   string         `json:"frontend,omitempty"`
	Kind       string         `json:"kind,omitempty"`
	Allowed    []netip.Prefix `json:"allowed,omitempty"`
	Fate       reason         `json:"fate"`
	Pool       string         `json:"pool,omitempty"`
	Masquerade *reason        `json:"masquerade,omitempty"`
	Affinity   int            `json:"affinitySeconds,omitempty"`
	Endpoints  []Endpoint     `json:"endpoints,omitempty"`
	Kernel     *kernelJSON    `json:"kernel,omitempty"`
}

type reason struct {
	Is  string `json:"is"`
	Why string `json:"why"`
}

// WriteJSON writes an answer for programs.
func WriteJSON(w io.Writer, a Answer) error {
	j := answerJSON{
		From: a.Packet.From, Interface: a.Packet.Interface, To: a.Packet.To, Protocol: a.Packet.Protocol.String(),
		Source: reason{a.Source.String(), a.SourceWhy}, Fate: reason{a.Fate.String(), a.Why}, Kernel: a.Kernel.json(),
	}
	if a.Frontend != nil {
		j.Service, j.Frontend, j.Kind = a.Port.Name.String(), a.Frontend.Addr.String(), a.Frontend.Kind.String()
		j.Allowed, j.Endpoints = a.Frontend.Allowed, a.endpoints()
	}
	if a.Fate == Forwarded {
		j.Pool, j.Affinity = a.Pool.String(), int(a.Affinity.Seconds())
		j.Masquerade = &reason{yesNo(a.masquerades()), a.MasqueradeWhy}
	}
	return writeJSON(w, j)
}

func writeJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
