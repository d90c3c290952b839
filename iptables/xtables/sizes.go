package xtables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// size is what the kernel tells of a table of the legacy backend in constant time.
type size struct{ entries, bytes uint32 }

// sizes asks for sizes of tables, and holds those after our last write. It is guarded by Runner.mu.
type sizes struct {
	fd    int
	level int // of the socket options
	last  map[string]size
}

// openSizes opens a socket in the network namespace of the calling thread. The sizes are those of that
// namespace, whoever asks.
func openSizes(family proxy.Family, tables []string) (*sizes, error) {
	domain, level := unix.AF_INET, unix.SOL_IP
	if family == proxy.IPv6 {
		domain, level = unix.AF_INET6, unix.SOL_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("open raw socket: %w", err)
	}
	s := &sizes{fd: fd, level: level, last: map[string]size{}}
	for _, table := range tables {
		if s.last[table], err = s.of(table); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// note takes the sizes after a write of ours. A nil s is for tables that nobody watches.
func (s *sizes) note() {
	if s == nil {
		return
	}
	for table := range s.last {
		// A size that cannot be read is none that a table can have, so the next look compares.
		s.last[table], _ = s.of(table)
	}
}

func (s *sizes) close() error { return unix.Close(s.fd) }

// The option and the layout of its value: struct ipt_getinfo in linux/netfilter_ipv4/ip_tables.h, the same
// for IPv6.
const (
	soGetInfo     = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	infoNameLen   = 32
	infoEntriesAt = infoNameLen + 4 + 5*4 + 5*4 // after valid_hooks, hook_entry and underflow
	infoSize      = infoEntriesAt + 4 + 4
)

func (s *sizes) of(table string) (size, error) {
	var info [infoSize]byte
	copy(info[:infoNameLen-1], table)
	length := uint32(infoSize)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), uintptr(s.level), soGetInfo,
		uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return size{}, fmt.Errorf("size of table %s: %w", table, errno)
	}
	return size{
		entries: binary.NativeEndian.Uint32(info[infoEntriesAt:]),
		bytes:   binary.NativeEndian.Uint32(info[infoEntriesAt+4:]),
	}, nil
}
