package trace

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
)

// Limits bound what is followed.
type Limits struct {
	Packets   int           // how many are followed
	PerSecond uint32        // how many a second, in each direction
	Time      time.Duration // how long
}

// Sink is told what happens, as it happens.
type Sink interface {
	// Step is told of each rule that the nth packet meets, counted from 1. Interfaces are names, "" where there is none.
	Step(n int, s nft.Step, rule, in, out string)

	// Lost is told that the kernel had more to tell than could be heard.
	Lost()

	// Connection is told in the end of each connection that a packet was of, as it is then. Tracked is nil if connection
	// tracking does not know it, and Balanced if IPVS does not.
	Connection(client, to netip.AddrPort, tracked *conntrack.Entry, balanced *kernel.Connection)
}

// quiet is how long the last packet is waited for.
const quiet = 300 * time.Millisecond

// TablePrefix begins the names of tables that are there while packets are followed.
const TablePrefix = nft.TapPrefix

// Follow follows packets of a flow until ctx or the limits end it, and gives how many there were. It calls begun once no packet is
// missed any more.
func Follow(ctx context.Context, flow nft.Flow, limits Limits, sink Sink, begun func()) (packets int, err error) {
	tap, err := nft.OpenTap(flow, limits.PerSecond)
	if err != nil {
		return 0, err
	}
	defer tap.Close()
	begun()
	f := &follower{
		flow: flow, limit: limits.Packets, sink: sink, rules: rules{}, interfaces: map[int]string{}, numbers: map[uint32]int{},
		seen: map[netip.AddrPort]bool{},
	}
	listening, stop := context.WithTimeout(ctx, limits.Time)
	defer stop()
	if err := f.listen(listening, tap); err != nil {
		return len(f.numbers), err
	}
	// What ended ctx does not keep from looking once more, which takes no time.
	return len(f.numbers), f.connections(context.WithoutCancel(ctx))
}

type follower struct {
	flow       nft.Flow
	limit      int
	sink       Sink
	rules      rules
	interfaces map[int]string
	numbers    map[uint32]int // of packets, by the kernel's

	seen    map[netip.AddrPort]bool // clients
	clients []netip.AddrPort        // in the order in which they came
}

// listen goes on until ctx ends, or all packets were heard of.
func (f *follower) listen(ctx context.Context, tap *nft.Tap) error {
	for {
		steps, err := f.next(ctx, tap)
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			return nil
		case errors.Is(err, nft.ErrLost):
			f.sink.Lost()
		case err != nil:
			return err
		}
		for _, s := range steps {
			f.step(ctx, s)
		}
		if f.complete() {
			tap.Unmark()
		}
	}
}

func (f *follower) complete() bool { return len(f.numbers) >= f.limit }

// next waits for more steps, not for long if no more packets come.
func (f *follower) next(ctx context.Context, tap *nft.Tap) ([]nft.Step, error) {
	if f.complete() {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, quiet)
		defer stop()
	}
	return tap.Next(ctx)
}

// step passes on what is of the packets that count.
func (f *follower) step(ctx context.Context, s nft.Step) {
	n, known := f.numbers[s.Packet]
	if !known {
		if f.complete() {
			return
		}
		n = len(f.numbers) + 1
		f.numbers[s.Packet] = n
	}
	f.note(s.Header)
	f.sink.Step(n, s, f.rules.text(ctx, s), f.name(s.In), f.name(s.Out))
}

// note remembers a client.
func (f *follower) note(h *nft.Header) {
	if h == nil || h.Protocol != f.flow.Protocol || h.To != f.flow.To || f.seen[h.From] {
		return
	}
	f.seen[h.From] = true
	f.clients = append(f.clients, h.From)
}

// name is that of an interface.
func (f *follower) name(index int) string {
	if index == 0 {
		return ""
	}
	name, ok := f.interfaces[index]
	if !ok {
		if i, err := net.InterfaceByIndex(index); err == nil {
			name = i.Name
		}
		f.interfaces[index] = name
	}
	return name
}

// connections tells of all connections that were seen.
func (f *follower) connections(ctx context.Context) error {
	if len(f.clients) == 0 {
		return nil
	}
	balanced, err := f.balanced()
	if err != nil {
		return err
	}
	table := &conntrack.Kernel{}
	for _, client := range f.clients {
		tracked, err := table.Get(ctx, f.flow.Protocol, conntrack.Tuple{Src: client, Dst: f.flow.To})
		if err != nil {
			return err
		}
		f.sink.Connection(client, f.flow.To, tracked, balanced[client])
	}
	return nil
}

// balanced is what IPVS knows of the clients.
func (f *follower) balanced() (map[netip.AddrPort]*kernel.Connection, error) {
	found := map[netip.AddrPort]*kernel.Connection{}
	for c, err := range kernel.Connections() {
		if err != nil {
			return nil, err
		}
		if c.Protocol == f.flow.Protocol && c.Virtual == f.flow.To && f.seen[c.Client] {
			found[c.Client] = &c
			if len(found) == len(f.clients) {
				break
			}
		}
	}
	return found, nil
}
