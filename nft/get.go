package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// Frame is what the kernel holds of the table but for elements, nil if there is none. What it costs does not depend on how many
// there are. Fits says nothing of elements then.
func (r *Runner) Frame(ctx context.Context) (*State, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", r.table, err)
	}
	defer func() { _ = c.Close() }()
	reader := &reader{Conn: c, family: r.family, name: r.table, schema: r.schema, again: maxReads, frame: true}
	state, err := reader.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", r.table, err)
	}
	return state, nil
}

// pipelined is how many questions are under way at once. Their answers must fit into the socket's buffer.
const pipelined = 64

// Get looks single elements up, whatever else there is. It gives those that are there.
func (r *Runner) Get(ctx context.Context, places []Place) (map[Place]*Content, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("look up elements of table %s: %w", r.table, err)
	}
	defer func() { _ = c.Close() }()
	found := make(map[Place]*Content, len(places))
	for len(places) > 0 {
		some := places[:min(pipelined, len(places))]
		places = places[len(some):]
		if err := errors.Join(ctx.Err(), c.SetDeadline(time.Now().Add(listLimit))); err != nil {
			return nil, err
		}
		if err := r.get(c, some, found); err != nil {
			return nil, fmt.Errorf("look up elements of table %s: %w", r.table, err)
		}
	}
	return found, nil
}

func (r *Runner) get(c *netlink.Conn, places []Place, found map[Place]*Content) error {
	requests := make([]netlink.Message, len(places))
	for i, p := range places {
		request, err := p.request(r.family, r.table)
		if err != nil {
			return err
		}
		requests[i] = request
	}
	if _, err := c.SendMessages(requests); err != nil {
		return err
	}
	for _, p := range places { // the kernel answers in order
		answers, err := c.Receive()
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return err
		}
		for _, answer := range answers {
			if content := p.read(answer, r.family); content != nil {
				found[p] = content
			}
		}
	}
	return nil
}

// request asks for the element at the place.
func (p Place) request(f proxy.Family, table string) (netlink.Message, error) {
	key, err := encodeKey(p.Set.Key, f, p.Key)
	if err != nil {
		return netlink.Message{}, err
	}
	data := append(nfgenmsg(f), marshal(
		text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, p.Set.Name),
		nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, nest(unix.NFTA_LIST_ELEM,
			nest(unix.NFTA_SET_ELEM_KEY, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: key}))))...)
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM), Flags: netlink.Request},
		Data:   data,
	}, nil
}

// read is the content in an answer, nil if that is another element: one that covers the place.
func (p Place) read(answer netlink.Message, f proxy.Family) *Content {
	m, ok := nfwatch.ParseMessage(answer)
	if !ok {
		return nil
	}
	elements, err := netlink.UnmarshalAttributes(m.Attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS))
	if err != nil {
		return nil
	}
	for _, raw := range elements {
		if e, err := p.Set.element(raw.Data, f); err == nil && e.Key == p.Key {
			return &Content{e.Value, e.Comment}
		}
	}
	return nil
}

// encodeKey is the inverse of format. Of a prefix it is the first address.
func encodeKey(fields []Field, f proxy.Family, key string) ([]byte, error) {
	parts := strings.Split(key, " . ")
	if len(parts) != len(fields) {
		return nil, fmt.Errorf("key %q has %d parts, want %d", key, len(parts), len(fields))
	}
	var data []byte
	for i, field := range fields {
		value, err := field.encode(parts[i])
		if err != nil || len(value) != field.sizeOf(f) {
			return nil, errors.Join(fmt.Errorf("key %q is malformed", key), err)
		}
		data = append(data, value...)
		if len(fields) > 1 {
			data = append(data, make([]byte, padded(len(value))-len(value))...)
		}
	}
	return data, nil
}

func (field Field) encode(value string) ([]byte, error) {
	switch field {
	case Addr:
		first, _, _ := strings.Cut(value, "/")
		a, err := netip.ParseAddr(first)
		return a.AsSlice(), err
	case Protocol:
		for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP, proxy.SCTP} {
			if p.String() == value {
				return []byte{byte(p)}, nil
			}
		}
		return nil, fmt.Errorf("protocol %q", value)
	case Port:
		n, err := strconv.ParseUint(value, 10, 16)
		return binary.BigEndian.AppendUint16(nil, uint16(n)), err
	case Class:
		high, low, _ := strings.Cut(value, ":")
		h, err1 := strconv.ParseUint(high, 16, 16)
		l, err2 := strconv.ParseUint(low, 16, 16)
		return binary.NativeEndian.AppendUint32(nil, uint32(h<<16|l)), errors.Join(err1, err2)
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 32)
	return binary.NativeEndian.AppendUint32(nil, uint32(n)), err
}
