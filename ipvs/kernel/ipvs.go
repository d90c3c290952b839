package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// timeout limits each exchange of messages with the kernel.
const timeout = 30 * time.Second

// pipeline is how many commands are under way at once. Their answers must fit into the socket's buffer.
const pipeline = 64

// ErrNoIPVS says that the kernel has no IPVS, and no module of it that could be loaded.
var ErrNoIPVS = errors.New("the kernel has no IPVS: module ip_vs is not loaded and cannot be")

// IPVS is the kernel's IPVS in one IP family, in the network namespace of the calling thread. It implements Servers.
type IPVS struct{ family proxy.Family }

// NewIPVS touches nothing.
func NewIPVS(f proxy.Family) *IPVS { return &IPVS{f} }

// socket is a netlink socket for one task.
type socket struct {
	*netlink.Conn
	family netlink.HeaderType // the number of IPVS in generic netlink
}

// dial opens a socket that no longer than the timeout waits for anything.
func dial(ctx context.Context) (*socket, error) {
	c, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return nil, err
	}
	s := &socket{Conn: c}
	if err := s.extend(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s.family, err = resolve(c)
	if errors.Is(err, unix.ENOENT) {
		modprobe(ctx)
		s.family, err = resolve(c)
	}
	if errors.Is(err, unix.ENOENT) {
		err = ErrNoIPVS
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

// modprobe has the module loaded. What counts is whether it is there then.
func modprobe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_ = exec.CommandContext(ctx, "modprobe", "ip_vs").Run()
}

// extend gives the next exchange its time.
func (s *socket) extend(ctx context.Context) error {
	deadline := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return errors.Join(ctx.Err(), s.SetDeadline(deadline))
}

func (s *socket) close() { _ = s.Close() }

// resolve asks for the number of IPVS. It is another one after the module was loaded anew.
func resolve(c *netlink.Conn) (netlink.HeaderType, error) {
	ae := netlink.NewAttributeEncoder()
	ae.String(unix.CTRL_ATTR_FAMILY_NAME, genlName)
	attrs, err := ae.Encode()
	if err != nil {
		return 0, err
	}
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.GENL_ID_CTRL, Flags: netlink.Request},
		Data:   append([]byte{unix.CTRL_CMD_GETFAMILY, 1, 0, 0}, attrs...),
	})
	if err != nil {
		return 0, err
	}
	for _, m := range answers {
		ad, err := netlink.NewAttributeDecoder(m.Data[min(4, len(m.Data)):])
		if err != nil {
			return 0, err
		}
		for ad.Next() {
			if ad.Type() == unix.CTRL_ATTR_FAMILY_ID {
				return netlink.HeaderType(ad.Uint16()), nil
			}
		}
	}
	return 0, errMalformed
}

// Run implements Servers.
func (k *IPVS) Run(ctx context.Context, commands []Command) ([]*Error, error) {
	if len(commands) == 0 {
		return nil, nil
	}
	s, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("change virtual servers: %w", err)
	}
	defer s.close()
	var refused []*Error
	for len(commands) > 0 {
		some := commands[:min(pipeline, len(commands))]
		commands = commands[len(some):]
		found, err := k.send(ctx, s, some)
		if err != nil {
			return nil, fmt.Errorf("change virtual servers: %w", err)
		}
		refused = append(refused, found...)
	}
	return refused, nil
}

// send runs a pipeline of commands. The kernel answers in order.
func (k *IPVS) send(ctx context.Context, s *socket, some []Command) ([]*Error, error) {
	messages := make([]netlink.Message, len(some))
	for i, c := range some {
		body, err := c.encode(k.family)
		if err != nil {
			return nil, err
		}
		messages[i] = netlink.Message{Header: netlink.Header{Type: s.family, Flags: netlink.Request | netlink.Acknowledge}, Data: body}
	}
	if err := s.extend(ctx); err != nil {
		return nil, err
	}
	if _, err := s.SendMessages(messages); err != nil {
		return nil, err
	}
	var refused []*Error
	for i := range some {
		_, err := s.Receive()
		if errno, ok := refusal(err); ok {
			refused = append(refused, &Error{some[i], errno})
		} else if err != nil {
			return nil, err
		}
	}
	return refused, nil
}

// refusal is the error that an answer holds; ok is false for trouble with the socket.
func refusal(err error) (unix.Errno, bool) {
	op, ok := errors.AsType[*netlink.OpError](err)
	if !ok || op.Sequence == 0 {
		return 0, false
	}
	return errors.AsType[unix.Errno](op.Err)
}

// A list is whole if so many more in a row say the same. Where the kernel changes all the time, maxLists are enough.
const (
	agreeing = 2
	maxLists = 12
)

// List implements Servers.
//
// The kernel (Linux 6.1) tells by a number how far a list has come, in one table for both families and all network namespaces. What
// comes or goes there meanwhile makes a virtual server appear twice, or not at all. Each that any list has is there.
func (k *IPVS) List(ctx context.Context) ([]Server, error) {
	s, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("list virtual servers: %w", err)
	}
	defer s.close()
	all := map[ID]Server{}
	for n, agreed := 0, 0; n < maxLists && agreed < agreeing; n++ {
		list, err := k.listOnce(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("list virtual servers: %w", err)
		}
		before := len(all)
		maps.Copy(all, list)
		if agreed++; len(all) > before || len(list) < len(all) {
			agreed = 0
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Server) int { return a.ID.Compare(b.ID) }), nil
}

// listOnce gives what the kernel gives.
func (k *IPVS) listOnce(ctx context.Context, s *socket) (map[ID]Server, error) {
	answers, err := s.ask(ctx, netlink.Dump, cmdGetService, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return nil, err
	}
	all := make(map[ID]Server, len(answers))
	for _, m := range answers {
		server, ours, err := decodeServer(m, k.family)
		if err != nil {
			return nil, err
		}
		if ours {
			all[server.ID] = server
		}
	}
	return all, nil
}

// ListIfLoaded is List, but of a kernel without IPVS, into which it does not bring the module.
func (k *IPVS) ListIfLoaded(ctx context.Context) ([]Server, error) {
	if _, err := os.Stat("/proc/thread-self/net/ip_vs"); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return k.List(ctx)
}

// Dests implements Servers.
func (k *IPVS) Dests(ctx context.Context, ids []ID) (map[ID][]Load, error) {
	all := make(map[ID][]Load, len(ids))
	if len(ids) == 0 {
		return all, nil
	}
	s, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("list backends: %w", err)
	}
	defer s.close()
	for _, id := range ids {
		if all[id], err = k.dests(ctx, s, id); err != nil {
			return nil, fmt.Errorf("list backends of virtual server %v: %w", id, err)
		}
	}
	return all, nil
}

func (k *IPVS) dests(ctx context.Context, s *socket, id ID) ([]Load, error) {
	answers, err := s.ask(ctx, netlink.Dump, cmdGetDest, k.naming(id))
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := make([]Load, 0, len(answers))
	for _, m := range answers {
		l, err := decodeDest(m, k.family)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// Look asks for single virtual servers. Its socket belongs to the network namespace of the thread that made it.
type Look struct {
	ipvs   *IPVS
	socket *socket // nil: to be opened anew
}

// Look opens a socket. It may be used beside the methods of Servers.
func (k *IPVS) Look(ctx context.Context) (*Look, error) {
	l := &Look{ipvs: k}
	return l, l.open(ctx)
}

// open opens the socket, if it is not.
func (l *Look) open(ctx context.Context) error {
	if l.socket != nil {
		return nil
	}
	s, err := dial(ctx)
	if err != nil {
		return fmt.Errorf("look for virtual servers: %w", err)
	}
	l.socket = s
	return nil
}

// See gives a virtual server as it is now, nil if there is none. It costs the same whatever else there is.
func (l *Look) See(ctx context.Context, id ID) (*Sight, error) {
	if err := l.open(ctx); err != nil {
		return nil, err
	}
	sight, err := l.ipvs.see(ctx, l.socket, id)
	if err != nil {
		l.Close() // the module may have been loaded anew: the number of IPVS is another one then
		return nil, fmt.Errorf("look at virtual server %v: %w", id, err)
	}
	return sight, nil
}

func (k *IPVS) see(ctx context.Context, s *socket, id ID) (*Sight, error) {
	answers, err := s.ask(ctx, 0, cmdGetService, k.naming(id))
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var sight Sight
	for _, m := range answers {
		if sight.Server, _, err = decodeServer(m, k.family); err != nil {
			return nil, err
		}
	}
	sight.Backends, err = k.dests(ctx, s, id)
	return &sight, err
}

// Close closes the socket.
func (l *Look) Close() {
	if l.socket != nil {
		l.socket.close()
		l.socket = nil
	}
}

func (k *IPVS) naming(id ID) func(*netlink.AttributeEncoder) {
	return func(ae *netlink.AttributeEncoder) {
		ae.Nested(attrService, func(ae *netlink.AttributeEncoder) error {
			encodeID(ae, k.family, id)
			return nil
		})
	}
}

// ask sends a request and gives the answers.
func (s *socket) ask(ctx context.Context, flags netlink.HeaderFlags, cmd uint8, attrs func(*netlink.AttributeEncoder)) ([]netlink.Message, error) {
	body, err := request(cmd, attrs)
	if err != nil {
		return nil, err
	}
	if err := s.extend(ctx); err != nil {
		return nil, err
	}
	answers, err := s.Execute(netlink.Message{Header: netlink.Header{Type: s.family, Flags: netlink.Request | flags}, Data: body})
	for _, m := range answers {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return nil, errInterrupted
		}
	}
	return answers, err
}

// errInterrupted says that what was listed changed meanwhile, so that the list may lack something.
var errInterrupted = errors.New("the list changed while it was read")
