package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// Of linux/netfilter/nf_tables.h, since 6.16, and not in package unix.
const setCount = 20 // NFTA_SET_COUNT

// Count implements Interface.
func (r *Runner) Count(set string) (n int, cheap bool, err error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = c.Close() }()
	reader := &reader{Conn: c, family: r.family, name: r.table}
	sets, err := reader.ask(unix.NFT_MSG_GETSET, 0, text(unix.NFTA_SET_TABLE, r.table), text(unix.NFTA_SET_NAME, set))
	if errors.Is(err, unix.ENOENT) {
		return 0, true, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("count elements of %s: %w", set, err)
	}
	for _, m := range sets {
		if value := m.Attr(setCount); len(value) == 4 {
			return int(number(value)), true, nil
		}
	}
	n, err = r.CountByListing(set)
	return n, false, err
}

// listLimit is how long the next part of a listing may take.
const listLimit = 10 * time.Second

// CountByListing is what Count does where the kernel does not tell.
func (r *Runner) CountByListing(set string) (int, error) {
	n, err := countByListing(r.family, r.table, set)
	if err != nil {
		return 0, fmt.Errorf("list elements of %s: %w", set, err)
	}
	return n, nil
}

// countByListing has the kernel list a set, and keeps none of it. Package netlink would keep it all.
func countByListing(f proxy.Family, table, set string) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	limit := unix.NsecToTimeval(listLimit.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return 0, err
	}
	request, err := listing(f, table, set).MarshalBinary()
	if err != nil {
		return 0, err
	}
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	n := 0
	for buffer := make([]byte, 1<<16); ; {
		length, _, err := unix.Recvfrom(fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		more, done, err := countIn(buffer[:length])
		if n += more; done || err != nil {
			return n, err
		}
	}
}

// listing asks for the elements of a set.
func listing(f proxy.Family, table, set string) netlink.Message {
	data := append(nfgenmsg(f), marshal(text(unix.NFTA_SET_ELEM_LIST_TABLE, table), text(unix.NFTA_SET_ELEM_LIST_SET, set))...)
	return netlink.Message{
		Header: netlink.Header{
			Length: uint32(unix.SizeofNlMsghdr + len(data)),
			Type:   unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM,
			Flags:  netlink.Request | netlink.Dump,
		},
		Data: data,
	}
}

// countIn counts the elements in a part of a listing.
func countIn(part []byte) (n int, done bool, err error) {
	messages, err := syscall.ParseNetlinkMessage(part)
	if err != nil {
		return 0, false, err
	}
	for _, raw := range messages {
		switch raw.Header.Type {
		case unix.NLMSG_DONE:
			return n, true, nil
		case unix.NLMSG_ERROR:
			if len(raw.Data) < 4 {
				return n, true, unix.EINVAL
			}
			return n, true, unix.Errno(-int32(binary.NativeEndian.Uint32(raw.Data)))
		}
		m, ok := nfwatch.ParseMessage(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(raw.Header.Type)}, Data: raw.Data})
		if ok {
			n += attributes(m.Attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS))
		}
	}
	return n, false, nil
}

// attributes is how many there are one after the other.
func attributes(list []byte) (n int) {
	for len(list) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(list))
		if length < unix.SizeofNlAttr {
			return n
		}
		n++
		list = list[min(len(list), padded(length)):]
	}
	return n
}
