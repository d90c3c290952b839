package nfwatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Generation is the end of a commit in nf_tables, of whatever family and table.
type Generation struct {
	ID      uint32
	Port    uint32 // of the netlink socket that committed
	PID     uint32 // in the initial pid namespace; 0 if the kernel does not tell
	Process string // its name, cut at 15 bytes
}

// After tells whether g is a later commit than that of id. Numbers wrap around.
func (g Generation) After(id uint32) bool { return int32(g.ID-id) > 0 }

// String names who committed.
func (g Generation) String() string {
	if g.Process == "" {
		return "an unknown process"
	}
	return fmt.Sprintf("%s (pid %d)", g.Process, g.PID)
}

// Message is what nf_tables tells of one object, as far as we look at it.
type Message struct {
	Kind     uint16 // NFT_MSG_…
	Appended bool   // a rule, to the end of its chain
	Family   uint8
	attrs    []netlink.Attribute
}

// nfgenmsg is the length of the header between that of netlink and the attributes.
const nfgenmsg = 4

// ParseMessage gives false for what is no message of nf_tables.
func ParseMessage(m netlink.Message) (Message, bool) {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < nfgenmsg {
		return Message{}, false
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[nfgenmsg:])
	if err != nil {
		return Message{}, false
	}
	return Message{
		Kind:     uint16(m.Header.Type) & 0xff,
		Appended: m.Header.Flags&netlink.Append != 0,
		Family:   m.Data[0],
		attrs:    attrs,
	}, true
}

// Attr is the value of an attribute, or nil.
func (m Message) Attr(kind uint16) []byte { return AttrOf(m.attrs, kind) }

// AttrOf is the value of the first attribute of a kind, or nil.
func AttrOf(attrs []netlink.Attribute, kind uint16) []byte {
	for _, a := range attrs {
		if a.Type&^(netlink.Nested|netlink.NetByteOrder) == kind {
			return a.Data
		}
	}
	return nil
}

// Nested follows attributes that hold attributes, and gives the value of the last, or nil.
func Nested(data []byte, path ...uint16) []byte {
	for _, kind := range path {
		attrs, err := netlink.UnmarshalAttributes(data)
		if err != nil {
			return nil
		}
		data = AttrOf(attrs, kind)
	}
	return data
}

// Text is the value of an attribute that holds a name.
func (m Message) Text(kind uint16) string { return AttrText(m.Attr(kind)) }

// AttrText is a value that is a name.
func AttrText(value []byte) string { return string(bytes.TrimRight(value, "\x00")) }

// Number is the value of an attribute that holds 32 bits, else 0.
func (m Message) Number(kind uint16) uint32 {
	if value := m.Attr(kind); len(value) == 4 {
		return binary.BigEndian.Uint32(value)
	}
	return 0
}

// Generation reads a message of kind NFT_MSG_NEWGEN, which came from a socket with that port number.
func (m Message) Generation(port uint32) Generation {
	return Generation{
		ID:      m.Number(unix.NFTA_GEN_ID),
		Port:    port,
		PID:     m.Number(unix.NFTA_GEN_PROC_PID),
		Process: m.Text(unix.NFTA_GEN_PROC_NAME),
	}
}

// CurrentGeneration asks for the newest commit.
func CurrentGeneration() (uint32, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN,
			Flags: netlink.Request,
		},
		Data: make([]byte, nfgenmsg),
	})
	if err != nil {
		return 0, fmt.Errorf("get generation: %w", err)
	}
	for _, answer := range answers {
		if m, ok := ParseMessage(answer); ok && m.Kind == unix.NFT_MSG_NEWGEN {
			return m.Number(unix.NFTA_GEN_ID), nil
		}
	}
	return 0, errors.New("get generation: no answer")
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
