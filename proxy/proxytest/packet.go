package proxytest

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// packet is a line of Step.Packets.
type packet struct {
	text string

	// Either a new connection …
	from     string
	source   netip.AddrPort // as far as it is given
	to       netip.AddrPort
	protocol proxy.Protocol
	name     string // it stays open under this name, if not empty

	// … or one that is open.
	again string

	want want
}

// want is what must become of a packet.
type want struct {
	fate    fate
	targets []target // for served and stuck: each must be seen, and no other
	atLeast int      // for crowded
	like    string   // for alike: the name of an open connection
}

// fate is what can become of a packet.
type fate uint8

const (
	served    fate = iota // by every target in turn, and by no other
	stuck                 // by one of the targets, always the same
	alike                 // by the backend that an open connection has
	same                  // by the backend that the connection has had before
	crowded               // by many backends of the crowd
	refused               // by ICMP port unreachable
	dropped               // no answer
	reset                 // by TCP
	unhandled             // by the node itself or the world: nothing was translated
	ignored               // likewise, or nobody listens there
)

// target is a backend and how it must see the client.
type target struct {
	host       string
	port       uint16
	masquerade bool
}

var (
	newLine   = regexp.MustCompile(`^(\S+) -> (\S+?)(?:/([a-z]+))?(?: as (\w+))?: (.*)$`)
	againLine = regexp.MustCompile(`^(\w+) again: (.*)$`)
)

var packetProtocols = map[string]proxy.Protocol{
	"": proxy.TCP, "tcp": proxy.TCP, "udp": proxy.UDP, "sctp": proxy.SCTP, "icmp": lab.ICMP, "invalid": lab.InvalidTCP,
}

// defaultTargetPort is the port of a target that names none.
const defaultTargetPort = 8080

// parsePackets reads the lines of a step for a family. Empty lines, and what follows a #, mean nothing.
func parsePackets(f proxy.Family, text string) ([]packet, error) {
	var packets []packet
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.Join(strings.Fields(line), " ")
		if line == "" {
			continue
		}
		p, err := parsePacket(f, line)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		packets = append(packets, p)
	}
	return packets, nil
}

// parsePacket reads a line:
//
//	HOST[@SOURCE[:PORT]] -> ADDRESS[:PORT][/PROTOCOL] [as NAME]: WANT
//	NAME again: WANT
//
// The host is one of the lab; the protocol is tcp, udp, sctp, icmp or invalid. WANT is one of
//
//	pod-a remote-a        each of these, no other; the backend sees the client's address
//	pod-a:9090            a port other than 8080
//	pod-a(masq)           the backend sees an address of the node
//	pod-a remote-a, masq  all of them do
//	one of pod-a pod-b    always the same of these
//	like NAME             the backend of an open connection, every time
//	same                  (after again) the backend that the connection has had
//	at least 50 of the crowd
//	refused, dropped, reset, unhandled
func parsePacket(f proxy.Family, line string) (packet, error) {
	p := packet{text: line}
	var wanted string
	if m := againLine.FindStringSubmatch(line); m != nil {
		p.again, wanted = m[1], m[2]
	} else if m := newLine.FindStringSubmatch(line); m != nil {
		if err := p.parseEnds(f, m[1], m[2], m[3]); err != nil {
			return p, err
		}
		p.name, wanted = m[4], m[5]
	} else {
		return p, fmt.Errorf("neither a new connection nor an open one")
	}
	var err error
	p.want, err = parseWant(wanted)
	return p, err
}

func (p *packet) parseEnds(f proxy.Family, from, to, protocol string) error {
	var known bool
	if p.protocol, known = packetProtocols[protocol]; !known {
		return fmt.Errorf("unknown protocol %q", protocol)
	}
	host, source, _ := strings.Cut(from, "@")
	p.from = host
	if !slices.Contains(hostNames, host) {
		return fmt.Errorf("there is no host %q", host)
	}
	var err error
	if source != "" {
		if p.source, err = parseAddrPort(f, source); err != nil {
			return err
		}
	}
	p.to, err = parseAddrPort(f, to)
	return err
}

// parseAddrPort reads an address of the plan, with or without a port.
func parseAddrPort(f proxy.Family, text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(lab.In(f, addr), 0), nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return at, err
	}
	return netip.AddrPortFrom(lab.In(f, at.Addr()), at.Port()), nil
}

var simpleFates = map[string]fate{"refused": refused, "dropped": dropped, "reset": reset, "unhandled": unhandled, "same": same}

func parseWant(text string) (want, error) {
	if fate, ok := simpleFates[text]; ok {
		return want{fate: fate}, nil
	}
	if name, ok := strings.CutPrefix(text, "like "); ok {
		return want{fate: alike, like: name}, nil
	}
	var n int
	if _, err := fmt.Sscanf(text, "at least %d of the crowd", &n); err == nil {
		return want{fate: crowded, atLeast: n}, nil
	}
	w := want{fate: served}
	text, one := strings.CutPrefix(text, "one of ")
	if one {
		w.fate = stuck
	}
	text, all := strings.CutSuffix(text, ", masq")
	for word := range strings.FieldsSeq(text) {
		t, err := parseTarget(word)
		if err != nil {
			return w, err
		}
		t.masquerade = t.masquerade || all
		w.targets = append(w.targets, t)
	}
	if len(w.targets) == 0 {
		return w, fmt.Errorf("nothing is wanted")
	}
	return w, nil
}

func parseTarget(word string) (target, error) {
	t := target{port: defaultTargetPort}
	word, t.masquerade = strings.CutSuffix(word, "(masq)")
	host, port, ok := strings.Cut(word, ":")
	if ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return t, err
		}
		t.port = uint16(n)
	}
	t.host = host
	if !slices.Contains(hostNames, host) {
		return t, fmt.Errorf("there is no host %q", host)
	}
	return t, nil
}

// hostNames are the hosts of the lab that may serve or connect.
var hostNames = []string{"node", "client", "remote", "world", "crowd", "pod-a", "pod-b", "pod-c", "remote-a", "remote-b"}

// host is the lab's host of that name, nil if there is none.
func host(l *lab.Lab, name string) *lab.Host {
	all := slices.Concat([]*lab.Host{l.Node, l.Client, l.Remote, l.World, l.Crowd}, l.Pods, l.RemotePods)
	if i := slices.IndexFunc(all, func(h *lab.Host) bool { return h.Name == name }); i >= 0 {
		return all[i]
	}
	return nil
}
