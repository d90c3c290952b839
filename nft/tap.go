package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// Flow selects the packets of connections, and of the answers.
type Flow struct {
	Protocol proxy.Protocol
	From     netip.Addr // the client; the zero Addr is everybody
	To       netip.AddrPort
}

// Tap has the kernel tell which rules of nf_tables the packets of a flow meet, those of iptables-nft included. It does so by a
// table of its own, which belongs to a socket of this process: when that is gone, however the process ended, the kernel removes
// the table (NFT_TABLE_F_OWNER, since Linux 5.12). Nobody else can change it. A Tap is of the network namespace in which it was
// opened, and not safe for concurrent use.
type Tap struct {
	table  string
	owner  *netlink.Conn // of the table
	events *netlink.Conn
	ours   map[uint32]bool // packets that the table chose, or not
}

// TapPrefix begins the names of such tables.
const TapPrefix = "sluice-trace-"

// eventsBuffer holds what the kernel tells of dozens of packets while a chain is listed, in bytes.
const eventsBuffer = 8 << 20

const (
	tableOwned = 2 // NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h

	// Of packets that were not translated yet; and of answers, which only connection tracking can tell, that is at -200.
	beforeAll     = -450
	afterTracking = -199
)

// OpenTap begins. At most so many packets a second are told of in each direction, at each of the hooks where packets come in and
// where the node's own begin.
func OpenTap(flow Flow, perSecond uint32) (*Tap, error) {
	events, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	t := &Tap{events: events, ours: map[uint32]bool{}}
	if err := t.open(flow, perSecond); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *Tap) open(flow Flow, perSecond uint32) (err error) {
	if err := t.events.SetReadBuffer(eventsBuffer); err != nil {
		return err
	}
	if err := t.events.JoinGroup(unix.NFNLGRP_NFTRACE); err != nil {
		return fmt.Errorf("listen to traces: %w", err)
	}
	if t.owner, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
		return err
	}
	t.table = fmt.Sprintf("%s%d", TapPrefix, t.owner.PID()) // no other socket of the namespace has this number
	_, err = commit(t.owner, t.messages(flow, perSecond))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errors.New("the kernel cannot be trusted to remove the rules that mark packets: that takes Linux 5.12 (tables with an owner)")
	}
	if err != nil {
		return fmt.Errorf("mark packets: %w", err)
	}
	return nil
}

// Close ends it, at once.
func (t *Tap) Close() {
	_ = t.events.Close()
	t.Unmark()
}

// Unmark chooses no more packets. Of those that were chosen Next goes on to tell.
func (t *Tap) Unmark() {
	if t.owner != nil {
		_ = t.owner.Close()
		t.owner = nil
	}
}

// ErrLost says that the kernel had more to tell than could be heard.
var ErrLost = errors.New("traces were lost")

// Next waits for the next steps of packets. It ends with ctx's error, if ctx ends; the Tap is of no use then. After ErrLost it
// goes on.
func (t *Tap) Next(ctx context.Context) ([]Step, error) {
	stop := context.AfterFunc(ctx, func() { _ = t.events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	messages, err := t.events.Receive()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if errors.Is(err, unix.ENOBUFS) {
		return nil, ErrLost
	}
	if err != nil {
		return nil, err
	}
	var steps []Step
	for _, m := range messages {
		if s, ok := parseStep(m); ok && t.chose(s) && s.Table != t.table {
			steps = append(steps, s)
		}
	}
	return steps, nil
}

// chose tells whether a packet is one that our table chose: others may trace, too. The first thing told of it is that.
func (t *Tap) chose(s Step) bool {
	ours, seen := t.ours[s.Packet]
	if !seen {
		ours = s.Table == t.table
		t.ours[s.Packet] = ours
	}
	return ours
}

// messages make the table.
func (t *Tap) messages(flow Flow, perSecond uint32) []netlink.Message {
	f := proxy.FamilyOf(flow.To.Addr())
	all := []netlink.Message{create(f, unix.NFT_MSG_NEWTABLE, text(unix.NFTA_TABLE_NAME, t.table), be32(unix.NFTA_TABLE_FLAGS, tableOwned))}
	for _, hook := range []struct {
		name   string
		number uint32
	}{{"prerouting", unix.NF_INET_PRE_ROUTING}, {"output", unix.NF_INET_LOCAL_OUT}} {
		all = append(all, t.chain(f, hook.name, hook.number, beforeAll))
		all = append(all, t.rule(f, hook.name, append(flow.packet(f), mark(perSecond)...)))
		all = append(all, t.chain(f, hook.name+"-answers", hook.number, afterTracking))
		all = append(all, t.rule(f, hook.name+"-answers", append(flow.answer(f), mark(perSecond)...)))
	}
	return all
}

func (t *Tap) chain(f proxy.Family, name string, hook uint32, priority int32) netlink.Message {
	return create(f, unix.NFT_MSG_NEWCHAIN,
		text(unix.NFTA_CHAIN_TABLE, t.table), text(unix.NFTA_CHAIN_NAME, name), text(unix.NFTA_CHAIN_TYPE, "filter"),
		nest(unix.NFTA_CHAIN_HOOK, be32(unix.NFTA_HOOK_HOOKNUM, hook), be32(unix.NFTA_HOOK_PRIORITY, uint32(priority))))
}

func (t *Tap) rule(f proxy.Family, chain string, expressions []netlink.Attribute) netlink.Message {
	return create(f, unix.NFT_MSG_NEWRULE, text(unix.NFTA_RULE_TABLE, t.table), text(unix.NFTA_RULE_CHAIN, chain),
		nest(unix.NFTA_RULE_EXPRESSIONS, expressions...))
}

func create(f proxy.Family, kind netlink.HeaderType, attrs ...netlink.Attribute) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | kind,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append,
		},
		Data: append(nfgenmsg(f), marshal(attrs...)...),
	}
}

// packet matches what the client sends, before it is translated.
func (flow Flow) packet(f proxy.Family) []netlink.Attribute {
	source, size := uint32(12), uint32(4) // of an IPv4 header
	if f == proxy.IPv6 {
		source, size = sourceAt, net6
	}
	field := func(base, at, length uint32) netlink.Attribute {
		return expression("payload", be32(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1), be32(unix.NFTA_PAYLOAD_BASE, base),
			be32(unix.NFTA_PAYLOAD_OFFSET, at), be32(unix.NFTA_PAYLOAD_LEN, length))
	}
	all := flow.protocol()
	if flow.From.IsValid() {
		all = append(all, field(unix.NFT_PAYLOAD_NETWORK_HEADER, source, size), equals(flow.From.AsSlice()))
	}
	return append(all,
		field(unix.NFT_PAYLOAD_NETWORK_HEADER, source+size, size), equals(flow.To.Addr().AsSlice()),
		field(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2), equals(flow.port()))
}

// answer matches what comes back, by what was sent.
func (flow Flow) answer(f proxy.Family) []netlink.Attribute {
	source, destination := uint32(unix.NFT_CT_SRC_IP), uint32(unix.NFT_CT_DST_IP)
	if f == proxy.IPv6 {
		source, destination = unix.NFT_CT_SRC_IP6, unix.NFT_CT_DST_IP6
	}
	original := func(key uint32) netlink.Attribute {
		return expression("ct", be32(unix.NFTA_CT_DREG, unix.NFT_REG_1), be32(unix.NFTA_CT_KEY, key),
			netlink.Attribute{Type: unix.NFTA_CT_DIRECTION, Data: []byte{directionOfAll}})
	}
	all := append(flow.protocol(),
		expression("ct", be32(unix.NFTA_CT_DREG, unix.NFT_REG_1), be32(unix.NFTA_CT_KEY, unix.NFT_CT_DIRECTION)), equals([]byte{1}))
	if flow.From.IsValid() {
		all = append(all, original(source), equals(flow.From.AsSlice()))
	}
	return append(all, original(destination), equals(flow.To.Addr().AsSlice()), original(unix.NFT_CT_PROTO_DST), equals(flow.port()))
}

func (flow Flow) protocol() []netlink.Attribute {
	return []netlink.Attribute{
		expression("meta", be32(unix.NFTA_META_DREG, unix.NFT_REG_1), be32(unix.NFTA_META_KEY, unix.NFT_META_L4PROTO)),
		equals([]byte{byte(flow.Protocol)}),
	}
}

func (flow Flow) port() []byte { return binary.BigEndian.AppendUint16(nil, flow.To.Port()) }

// equals goes on if the first register holds a value.
func equals(value []byte) netlink.Attribute {
	return expression("cmp", be32(unix.NFTA_CMP_SREG, unix.NFT_REG_1), be32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ),
		nest(unix.NFTA_CMP_DATA, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: value}))
}

// mark has a packet traced, unless there are too many.
func mark(perSecond uint32) []netlink.Attribute {
	be64 := func(kind uint16, value uint64) netlink.Attribute {
		return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint64(nil, value)}
	}
	return []netlink.Attribute{
		expression("limit", be64(unix.NFTA_LIMIT_RATE, uint64(perSecond)), be64(unix.NFTA_LIMIT_UNIT, 1),
			be32(unix.NFTA_LIMIT_BURST, perSecond), be32(unix.NFTA_LIMIT_TYPE, unix.NFT_LIMIT_PKTS), be32(unix.NFTA_LIMIT_FLAGS, 0)),
		expression("immediate", be32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1),
			nest(unix.NFTA_IMMEDIATE_DATA, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: []byte{1}})),
		expression("meta", be32(unix.NFTA_META_KEY, unix.NFT_META_NFTRACE), be32(unix.NFTA_META_SREG, unix.NFT_REG_1)),
	}
}
