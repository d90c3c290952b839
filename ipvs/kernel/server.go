package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// ID is what tells the virtual servers of one family apart: an address with a protocol, or a mark that packets carry.
type ID struct {
	Addr     netip.AddrPort
	Protocol proxy.Protocol

	Mark uint32 // if it is not 0, the rest is zero
}

// Compare sorts IDs: first those with an address, by that, then by their marks.
func (id ID) Compare(other ID) int {
	return cmp.Or(cmp.Compare(id.Mark, other.Mark), id.Addr.Compare(other.Addr), cmp.Compare(id.Protocol, other.Protocol))
}

// String is the ID as people write it.
func (id ID) String() string {
	if id.Mark != 0 {
		return fmt.Sprintf("mark %#08x", id.Mark)
	}
	return fmt.Sprintf("%v/%v", id.Addr, id.Protocol)
}

// Server is a virtual server without its backends.
type Server struct {
	ID        ID
	Scheduler string
	Fallback  bool   // a hashing scheduler passes over backends without weight
	Timeout   uint32 // of persistence, in seconds; 0 is none

	// Altered says that the kernel's has something that we never ask for, such as persistence of whole networks.
	Altered bool
}

// Dest is a backend of a virtual server, called a real server or destination in IPVS.
type Dest struct {
	Addr   netip.AddrPort
	Weight uint32
}

// Load is a Dest in the kernel and how many connections it has.
type Load struct {
	Dest
	Active, Inactive uint32

	// Altered says that it has something that we never ask for: another way to forward, or a limit of connections.
	Altered bool
}

// Connections is how many there are, those that are about to end included.
func (l Load) Connections() uint32 { return l.Active + l.Inactive }

// Sight is a virtual server in the kernel with its backends.
type Sight struct {
	Server
	Backends []Load
}

// Op is what a Command does.
type Op uint8

// The operations. Those on a Dest use the ID of the Server only.
const (
	AddServer Op = iota
	SetServer
	DeleteServer
	AddDest
	SetDest
	DeleteDest
)

// Command changes one object.
type Command struct {
	Op     Op
	Server Server
	Dest   Dest
}

// Error is what became of a Command that the kernel refused.
type Error struct {
	Command Command
	Err     error
}

// Error names the object.
func (e *Error) Error() string {
	verb := [...]string{"add", "change", "delete", "add", "change", "delete"}[e.Command.Op]
	if e.Command.Op <= SetServer && e.Missing() {
		return fmt.Sprintf("the kernel has no scheduler %s: module ip_vs_%s is not loaded and cannot be", e.Command.Server.Scheduler, e.Command.Server.Scheduler)
	}
	what := fmt.Sprintf("virtual server %v (scheduler %s)", e.Command.Server.ID, e.Command.Server.Scheduler)
	if e.Command.Op >= AddDest {
		what = fmt.Sprintf("backend %v of virtual server %v", e.Command.Dest.Addr, e.Command.Server.ID)
	}
	return fmt.Sprintf("%s %s: %v", verb, what, e.Err)
}

// Missing says that the object is not there, or for a new virtual server, that its scheduler is not.
func (e *Error) Missing() bool { return errors.Is(e.Err, unix.ENOENT) || errors.Is(e.Err, unix.ESRCH) }

// Resource says that the command is not to blame: memory ran out, or we may not.
func (e *Error) Resource() bool {
	for _, errno := range []error{unix.ENOMEM, unix.ENOBUFS, unix.EINTR, unix.EPERM} {
		if errors.Is(e.Err, errno) {
			return true
		}
	}
	return false
}

// Disturbed says that things are not as they were when the command was thought of: what it adds is there, or what it changes is not.
// Somebody else has been here meanwhile.
func (e *Error) Disturbed() bool {
	switch e.Command.Op {
	case AddServer, AddDest:
		return errors.Is(e.Err, unix.EEXIST) || errors.Is(e.Err, unix.ESRCH)
	case SetServer: // otherwise it is the scheduler that is missing
		return errors.Is(e.Err, unix.ESRCH)
	}
	return e.Missing()
}

// Unwrap is what the kernel said.
func (e *Error) Unwrap() error { return e.Err }

// Servers are the virtual servers of one IP family. It is not safe for concurrent use, but a Look may be used beside it.
type Servers interface {
	// Run runs all commands in order, whatever becomes of those before. Refused are those that the kernel did not take.
	// After an error it is not known which it took.
	Run(ctx context.Context, commands []Command) (refused []*Error, err error)

	// List lists all virtual servers, everybody's.
	List(ctx context.Context) ([]Server, error)

	// Dests lists the backends of some virtual servers, none for one that is not there.
	Dests(ctx context.Context, ids []ID) (map[ID][]Load, error)
}
