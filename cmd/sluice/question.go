package main

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/explain"
)

// question is what explain is asked, in the words of its flags. Either a Service, or a packet.
type question struct {
	service  string // NAMESPACE/NAME
	from, to string
	output   string
	blind    bool // does not want the kernel to be looked at
}

// views has what was applied last in a family, nil if that is nothing.
type views func(proxy.Family) *explain.View

// values and questionOf carry a question to a running proxy.
func (q question) values() url.Values {
	return url.Values{"service": {q.service}, "from": {q.from}, "to": {q.to}, "output": {q.output}, "blind": {strconv.FormatBool(q.blind)}}
}

func questionOf(v url.Values) question {
	return question{service: v.Get("service"), from: v.Get("from"), to: v.Get("to"), output: v.Get("output"), blind: v.Get("blind") == "true"}
}

// check names all that is wrong with a question.
func (q question) check() error {
	if err := checkOutput(q.output); err != nil {
		return err
	}
	switch {
	case q.service != "" && (q.from != "" || q.to != ""):
		return fmt.Errorf("either a Service, or --from and --to")
	case q.service != "":
		_, err := serviceName(q.service)
		return err
	}
	_, err := q.packet()
	return err
}

func checkOutput(form string) error {
	if form != "text" && form != "json" {
		return fmt.Errorf("--output: %q is neither text nor json", form)
	}
	return nil
}

// look finds what implements frontends of a ServicePort in the kernel, and which backend they keep for a client, if that is not the
// zero Addr; nil if nobody looks.
type look func(f proxy.Family, port *proxy.ServicePort, frontends []proxy.Frontend, client netip.Addr) *explain.Kernel

// nobodyLooks is for answers that are about files.
func nobodyLooks(proxy.Family, *proxy.ServicePort, []proxy.Frontend, netip.Addr) *explain.Kernel {
	return nil
}

// write writes the answer, and tells whether the kernel agrees with it.
func (q question) write(w io.Writer, of views, look look) (agrees bool, err error) {
	if err := q.check(); err != nil {
		return false, err
	}
	if q.blind {
		look = nobodyLooks
	}
	if q.service != "" {
		return q.writeService(w, of, look)
	}
	p, err := q.packet()
	if err != nil {
		return false, err
	}
	family := proxy.FamilyOf(p.To.Addr())
	view := of(family)
	if view == nil {
		return false, fmt.Errorf("nothing of %v is served on this node yet", family)
	}
	answer := view.Packet(p)
	if answer.Frontend != nil && view.Refusal(answer.Port.Name) == nil {
		answer.Kernel = look(family, answer.Port, []proxy.Frontend{*answer.Frontend}, p.From)
	}
	if q.output == "json" {
		return answer.Kernel.Agrees(), explain.WriteJSON(w, answer)
	}
	return answer.Kernel.Agrees(), explain.WriteText(w, answer)
}

func (q question) writeService(w io.Writer, of views, look look) (agrees bool, err error) {
	name, err := serviceName(q.service)
	if err != nil {
		return false, err
	}
	agrees = true
	var ports []explain.PortAnswer
	for _, f := range proxy.Families {
		view := of(f)
		if view == nil {
			continue
		}
		for _, a := range view.Service(name) {
			if a.SetAside == nil {
				a.Kernel = look(f, a.Port, a.Port.Frontends, netip.Addr{})
			}
			agrees = agrees && a.Kernel.Agrees()
			ports = append(ports, a)
		}
	}
	if len(ports) == 0 {
		return false, fmt.Errorf("this node serves no Service %v", name)
	}
	if q.output == "json" {
		return agrees, explain.WriteServiceJSON(w, ports)
	}
	return agrees, explain.WriteService(w, ports)
}

func serviceName(text string) (proxy.ServiceName, error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return proxy.ServiceName{}, fmt.Errorf("%q is not NAMESPACE/NAME", text)
	}
	return proxy.ServiceName{Namespace: namespace, Name: name}, nil
}

// anyone stands for a client outside of the cluster (RFC 5737, RFC 3849).
var anyone = map[proxy.Family]netip.Addr{
	proxy.IPv4: netip.MustParseAddr("192.0.2.1"),
	proxy.IPv6: netip.MustParseAddr("2001:db8::1"),
}

// packet reads --from and --to.
func (q question) packet() (explain.Packet, error) {
	p, err := destination(q.to)
	if err != nil {
		return p, fmt.Errorf("--to: %w", err)
	}
	if q.from == "outside" {
		p.From = anyone[proxy.FamilyOf(p.To.Addr())]
		return p, nil
	}
	address, through, _ := strings.Cut(q.from, "%")
	if p.From, err = netip.ParseAddr(address); err != nil {
		return p, fmt.Errorf("--from: %q is none of IP[%%INTERFACE], pod:NAMESPACE/NAME and outside", q.from)
	}
	p.From, p.Interface = p.From.Unmap(), through
	if proxy.FamilyOf(p.From) != proxy.FamilyOf(p.To.Addr()) {
		return p, fmt.Errorf("--from %s and --to %s are of different IP families", q.from, q.to)
	}
	return p, nil
}

// destination reads IP:PORT[/PROTOCOL].
func destination(text string) (explain.Packet, error) {
	at, protocol, named := strings.Cut(text, "/")
	p := explain.Packet{Protocol: proxy.TCP}
	to, err := netip.ParseAddrPort(at)
	if err != nil {
		return p, fmt.Errorf("%q is not IP:PORT/PROTOCOL", text)
	}
	p.To = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if !named {
		return p, nil
	}
	for _, p.Protocol = range []proxy.Protocol{proxy.TCP, proxy.UDP, proxy.SCTP} {
		if strings.EqualFold(protocol, p.Protocol.String()) {
			return p, nil
		}
	}
	return p, fmt.Errorf("%q: the protocol is none of tcp, udp and sctp", text)
}
