package kernel

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Fake is virtual servers without a kernel, for tests. It is as strict as the kernel.
type Fake struct {
	Servers map[ID]Server
	Backing map[ID]map[netip.AddrPort]Load

	// Fail, if set, is asked before each call and each command, and may have it fail.
	Fail func() bool

	// OtherTimeouts says that somebody changed them.
	OtherTimeouts bool

	// Commands counts what was run, Lists what was listed: one for each server that was looked into.
	Commands, Lists int
}

// ErrFake is what a Fake fails with.
var ErrFake = errors.New("failed on purpose")

// NewFake has no virtual servers.
func NewFake() *Fake {
	return &Fake{Servers: map[ID]Server{}, Backing: map[ID]map[netip.AddrPort]Load{}}
}

func (f *Fake) fails() bool { return f.Fail != nil && f.Fail() }

// Run implements Servers.
func (f *Fake) Run(_ context.Context, commands []Command) ([]*Error, error) {
	var refused []*Error
	for _, c := range commands {
		if f.fails() {
			return nil, ErrFake
		}
		f.Commands++
		if errno := f.run(c); errno != 0 {
			refused = append(refused, &Error{c, errno})
		}
	}
	return refused, nil
}

func (f *Fake) run(c Command) unix.Errno {
	id := c.Server.ID
	_, there := f.Servers[id]
	switch {
	case c.Op == AddServer && there:
		return unix.EEXIST
	case c.Op != AddServer && !there:
		return unix.ESRCH
	case c.Op == AddServer:
		f.Backing[id] = map[netip.AddrPort]Load{}
		f.Servers[id] = c.Server
		return 0
	case c.Op == SetServer:
		f.Servers[id] = c.Server
		return 0
	case c.Op == DeleteServer:
		delete(f.Servers, id)
		delete(f.Backing, id)
		return 0
	}
	dest, there := f.Backing[id][c.Dest.Addr]
	switch {
	case c.Op == AddDest && there:
		return unix.EEXIST
	case c.Op != AddDest && !there:
		return unix.ENOENT
	case c.Op == DeleteDest:
		delete(f.Backing[id], c.Dest.Addr)
		return 0
	}
	dest.Dest, dest.Altered = c.Dest, false
	f.Backing[id][c.Dest.Addr] = dest
	return 0
}

// List implements Servers.
func (f *Fake) List(context.Context) ([]Server, error) {
	if f.fails() {
		return nil, ErrFake
	}
	return slices.Collect(maps.Values(f.Servers)), nil
}

// Dests implements Servers.
func (f *Fake) Dests(_ context.Context, ids []ID) (map[ID][]Load, error) {
	if f.fails() {
		return nil, ErrFake
	}
	all := map[ID][]Load{}
	for _, id := range ids {
		f.Lists++
		all[id] = slices.Collect(maps.Values(f.Backing[id]))
	}
	return all, nil
}

// See is as that of a Look.
func (f *Fake) See(ctx context.Context, id ID) (*Sight, error) {
	s, there := f.Servers[id]
	if !there {
		return nil, nil
	}
	loads, err := f.Dests(ctx, []ID{id})
	return &Sight{s, loads[id]}, err
}

// HasTimeouts is as that of a Look.
func (f *Fake) HasTimeouts(context.Context, Timeouts) (bool, error) { return !f.OtherTimeouts, nil }
