package xtables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// generation is the end of a commit in nf_tables, of whatever family and table.
type generation struct {
	id      uint32
	port    uint32 // of the netlink socket that committed
	pid     uint32 // in the initial pid namespace; 0 if the kernel does not tell
	process string // its name, cut at 15 bytes
}

// after tells whether g is a later commit than that of id. Numbers wrap around.
func (g generation) after(id uint32) bool { return int32(g.id-id) > 0 }

// String names who committed.
func (g generation) String() string {
	if g.process == "" {
		return "an unknown process"
	}
	return fmt.Sprintf("%s (pid %d)", g.process, g.pid)
}

// message is what nf_tables tells of one object, as far as we look at it.
type message struct {
	kind     uint16 // NFT_MSG_…
	appended bool   // a rule, to the end of its chain
	family   uint8
	attrs    []netlink.Attribute
}

// nfgenmsg is the length of the header between that of netlink and the attributes.
const nfgenmsg = 4

func parseMessage(m netlink.Message) (message, bool) {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfgenmsg {
		return message{}, false
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[nfgenmsg:])
	if err != nil {
		return message{}, false
	}
	return message{
		kind:     uint16(m.Header.Type) & 0xff,
		appended: m.Header.Flags&netlink.Append != 0,
		family:   m.Data[0],
		attrs:    attrs,
	}, true
}

// attr is the value of an attribute, or nil.
func (m message) attr(kind uint16) []byte { return attrOf(m.attrs, kind) }

func attrOf(attrs []netlink.Attribute, kind uint16) []byte {
	for _, a := range attrs {
		if a.Type&^(netlink.Nested|netlink.NetByteOrder) == kind {
			return a.Data
		}
	}
	return nil
}

// nested follows attributes that hold attributes, and gives the value of the last, or nil.
func nested(data []byte, path ...uint16) []byte {
	for _, kind := range path {
		attrs, err := netlink.UnmarshalAttributes(data)
		if err != nil {
			return nil
		}
		data = attrOf(attrs, kind)
	}
	return data
}

// target is the chain that a rule jumps or goes to, or "".
func (m message) target() string {
	expressions, err := netlink.UnmarshalAttributes(m.attr(unix.NFTA_RULE_EXPRESSIONS))
	if err != nil {
		return ""
	}
	for _, e := range expressions {
		if string(nested(e.Data, unix.NFTA_EXPR_NAME)) != "immediate\x00" {
			continue
		}
		name := nested(e.Data, unix.NFTA_EXPR_DATA, unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN)
		if len(name) > 0 {
			return string(bytes.TrimRight(name, "\x00"))
		}
	}
	return ""
}

// handle is that of a rule.
func (m message) handle() uint64 {
	if value := m.attr(unix.NFTA_RULE_HANDLE); len(value) == 8 {
		return binary.BigEndian.Uint64(value)
	}
	return 0
}

func (m message) text(kind uint16) string {
	return string(bytes.TrimRight(m.attr(kind), "\x00"))
}

func (m message) number(kind uint16) uint32 {
	if value := m.attr(kind); len(value) == 4 {
		return binary.BigEndian.Uint32(value)
	}
	return 0
}

func (m message) generation(port uint32) generation {
	return generation{
		id:      m.number(unix.NFTA_GEN_ID),
		port:    port,
		pid:     m.number(unix.NFTA_GEN_PROC_PID),
		process: m.text(unix.NFTA_GEN_PROC_NAME),
	}
}

// part is what somebody may not touch: chains of a prefix, and jumps to them, in some tables of a family.
type part struct {
	family proxy.Family
	tables []string
	prefix string
}

// touched says what a message tells to have happened to the part, or "".
func (p part) touched(m message) string {
	if m.family != nfFamily(p.family) {
		return ""
	}
	switch m.kind {
	case unix.NFT_MSG_DELTABLE:
		if table := m.text(unix.NFTA_TABLE_NAME); p.has(table) {
			return "deleted table " + table
		}
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		table, chain := m.text(unix.NFTA_CHAIN_TABLE), m.text(unix.NFTA_CHAIN_NAME)
		if p.has(table) && strings.HasPrefix(chain, p.prefix) {
			return fmt.Sprintf("%s chain %s of table %s", verbOf(m.kind), chain, table)
		}
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return p.touchedByRule(m)
	}
	return ""
}

func (p part) touchedByRule(m message) string {
	table, chain := m.text(unix.NFTA_RULE_TABLE), m.text(unix.NFTA_RULE_CHAIN)
	if !p.has(table) {
		return ""
	}
	if strings.HasPrefix(chain, p.prefix) {
		return fmt.Sprintf("%s a rule in chain %s of table %s", verbOf(m.kind), chain, table)
	}
	first := m.kind == unix.NFT_MSG_NEWRULE && !m.appended && m.attr(unix.NFTA_RULE_POSITION) == nil
	if first && slices.Contains(builtin[table], chain) {
		for _, target := range kubeProxy {
			if bytes.Contains(m.attr(unix.NFTA_RULE_EXPRESSIONS), []byte(target+"\x00")) {
				return fmt.Sprintf("put a jump to %s first in chain %s of table %s", target, chain, table)
			}
		}
	}
	// The name of a jump's target stands as text in the rule's expressions. A comment that
	// holds our prefix looks the same: then there is one comparison too many.
	if m.kind == unix.NFT_MSG_DELRULE && bytes.Contains(m.attr(unix.NFTA_RULE_EXPRESSIONS), []byte(p.prefix)) {
		return fmt.Sprintf("deleted a jump to ours in chain %s of table %s", chain, table)
	}
	return ""
}

func (p part) has(table string) bool {
	return slices.Contains(p.tables, table)
}

func verbOf(kind uint16) string {
	if kind == unix.NFT_MSG_DELCHAIN || kind == unix.NFT_MSG_DELRULE {
		return "deleted"
	}
	return "wrote"
}

func nfFamily(f proxy.Family) uint8 {
	if f == proxy.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

const newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN

// onlyGenerations is a socket filter that drops messages other than the ends of commits. The kernel sends
// those apart; other messages of a commit come several in a packet.
func onlyGenerations() ([]bpf.RawInstruction, error) {
	var kind [2]byte // as it stands in the packet; the filter loads it as big-endian
	binary.NativeEndian.PutUint16(kind[:], newGeneration)
	const typeAt = 4 // of struct nlmsghdr
	return bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(kind[:])), SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 1 << 16},
	})
}
