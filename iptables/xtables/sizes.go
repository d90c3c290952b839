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

// sizes asks for sizes of tables, and holds those of the last look. It is guarded by Runner.mu.
type sizes struct {
	fd      int
	level   int // of the socket options
	last    map[string]size
	foreign map[string]int // entries of others then, in tables whose ledger is known
}

// openSizes opens a socket in the network namespace of the calling thread. The sizes are those of that
// namespace, whoever asks.
func openSizes(family proxy.Family, tables []string, l *ledger) (*sizes, error) {
	domain, level := unix.AF_INET, unix.SOL_IP
	if family == proxy.IPv6 {
		domain, level = unix.AF_INET6, unix.SOL_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("open raw socket: %w", err)
	}
	s := &sizes{fd: fd, level: level, last: map[string]size{}, foreign: map[string]int{}}
	for _, table := range tables {
		now, err := s.of(table)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.take(table, now, l)
	}
	return s, nil
}

// note looks at the tables after a write of ours. Somebody else may have written since the look before, so a
// size that our writes do not explain is not taken over: the next look compares. A nil s is for tables that nobody
// watches.
func (s *sizes) note(l *ledger) {
	if s == nil {
		return
	}
	for table := range s.last {
		now := s.now(table)
		if !s.explained(table, now, l) {
			now = size{}
		}
		s.take(table, now, l)
	}
}

// now is the size of a table that is watched; zero, which none has, if nobody knows.
func (s *sizes) now(table string) size {
	if s == nil {
		return size{}
	}
	now, _ := s.of(table)
	return now
}

// take remembers a look at a table, if it is watched.
func (s *sizes) take(table string, now size, l *ledger) {
	if s == nil {
		return
	}
	s.last[table] = now
	if ours, known := l.entries(table); known {
		s.foreign[table] = int(now.entries) - ours
	} else {
		delete(s.foreign, table)
	}
}

// explained tells whether others have as many entries as at the last look. After a write of which nobody knows
// how far it went, only an unchanged table is.
func (s *sizes) explained(table string, now size, l *ledger) bool {
	if now == (size{}) || s.last[table] == (size{}) {
		return false
	}
	ours, known := l.entries(table)
	foreign, was := s.foreign[table]
	if !known || !was {
		return now == s.last[table]
	}
	return int(now.entries)-ours == foreign
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
