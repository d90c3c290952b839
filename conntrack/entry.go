package conntrack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// Entry is what connection tracking knows of one connection.
type Entry struct {
	Protocol        proxy.Protocol
	Original, Reply Tuple // Reply.Src is the backend, Reply.Dst what the backend takes for the client
	Status          Status
	State           string        // of TCP, in the words of conntrack; "" for other protocols
	Left            time.Duration // until it is forgotten, if nothing comes
}

// Status are bits of linux/netfilter/nf_conntrack_common.h.
type Status uint32

// SeenReply says that something came back.
const SeenReply Status = 1 << 1

// Get asks for the connection of which a client's packets look like this, in the default zone; nil if there is none.
func (k *Kernel) Get(ctx context.Context, protocol proxy.Protocol, original Tuple) (*Entry, error) {
	family := proxy.FamilyOf(original.Dst.Addr())
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	r, start := begin(nil, msgGet, 0, 1, family)
	r.tuple(attrTupleOriginal, protocol, original, 0)
	if err := c.send(ctx, r.end(start)); err != nil {
		return nil, err
	}
	var found *Entry
	_, err = c.receive(ctx, func(m message) (bool, error) {
		if m.typ == unix.NLMSG_ERROR {
			return true, m.result()
		}
		found, err = decodeEntry(m.body, family)
		return true, err
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for connection %v > %v: %w", original.Src, original.Dst, err)
	}
	return found, nil
}

// decodeEntry reads the body of a message about a connection of the family.
func decodeEntry(body []byte, family proxy.Family) (*Entry, error) {
	if len(body) < nfHeaderLen || body[0] != netlinkFamily(family) {
		return nil, errMalformed
	}
	var e Entry
	err := eachAttr(body[nfHeaderLen:], func(typ uint16, value []byte) (err error) {
		var t tuple
		var n uint32
		switch typ {
		case attrTupleOriginal:
			t, err = decodeTuple(value)
			e.Original, e.Protocol = t.ends(), t.protocol
		case attrTupleReply:
			t, err = decodeTuple(value)
			e.Reply = t.ends()
		case attrStatus:
			n, err = uint32Of(value)
			e.Status = Status(n)
		case attrTimeout:
			n, err = uint32Of(value)
			e.Left = time.Duration(n) * time.Second
		case attrProtoInfo:
			e.State, err = decodeState(value)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// tcpStates are those of linux/netfilter/nf_conntrack_tcp.h.
var tcpStates = [...]string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

func decodeState(info []byte) (state string, err error) {
	err = eachAttr(info, func(typ uint16, value []byte) error {
		if typ != attrInfoTCP {
			return nil
		}
		return eachAttr(value, func(typ uint16, value []byte) error {
			if typ == attrTCPState && len(value) > 0 && int(value[0]) < len(tcpStates) {
				state = tcpStates[value[0]]
			}
			return nil
		})
	})
	return state, err
}
