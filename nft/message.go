package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// nfgenmsg is the header between that of netlink and the attributes.
func nfgenmsg(f proxy.Family) []byte { return []byte{nfFamily(f), unix.NFNETLINK_V0, 0, 0} }

func number(value []byte) uint32 {
	if len(value) == 4 {
		return binary.BigEndian.Uint32(value)
	}
	return 0
}

func nfFamily(f proxy.Family) uint8 {
	if f == proxy.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
