package nfwatch

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Buffers of the two sockets, in bytes. The first load of a large cluster overflows the first whatever its
// size; ends of commits are too small and too rare to overflow the second.
const (
	detailsBuffer     = 16 << 20
	generationsBuffer = 4 << 20
)

// Config says what is watched. All fields are required.
type Config struct {
	// Touched says what a message tells to have happened to what is ours, or "".
	Touched func(Message) string

	// Ours tells whether we made a commit.
	Ours func(Generation) bool

	// Compare reads what is ours and says what is not as it should be, or "". It is asked after messages were lost
	// of which not all were about our own commits.
	Compare func(ctx context.Context) string
}

// Watch reads the messages of every commit, and then the end of the commit, which tells whose it was.
//
// A commit can be larger than any buffer. Therefore a second socket gets only the ends of commits: after
// an overflow it tells whether there was anybody but us, and only then everything is compared.
type Watch struct {
	cfg Config

	details, generations *netlink.Conn
	buffer               int // of details, in bytes

	last   uint32 // the newest commit that was judged
	reason string // what the commit that is being read did to what is ours
}

// New begins to watch, in the network namespace of the calling thread: what happens after it is noticed by Run. Run
// must follow.
func New(cfg Config) (*Watch, error) {
	w := &Watch{cfg: cfg, buffer: detailsBuffer}
	if err := w.open(); err != nil {
		w.close()
		return nil, fmt.Errorf("watch nf_tables: %w", err)
	}
	return w, nil
}

// SetBuffer makes the buffer for messages smaller, in bytes, so that a test can have it overflow.
func (w *Watch) SetBuffer(bytes int) error {
	w.buffer = bytes
	return w.details.SetReadBuffer(bytes)
}

func (w *Watch) open() (err error) {
	if w.generations, err = subscribe(generationsBuffer, true); err != nil {
		return err
	}
	if w.details, err = subscribe(w.buffer, false); err != nil {
		return err
	}
	w.last, err = CurrentGeneration()
	return err
}

func (w *Watch) close() {
	for _, c := range []*netlink.Conn{w.details, w.generations} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// subscribe opens a socket, in the network namespace of the calling thread, that hears of commits.
func subscribe(buffer int, onlyEnds bool) (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	if err := prepare(c, buffer, onlyEnds); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func prepare(c *netlink.Conn, buffer int, onlyEnds bool) error {
	if err := c.SetReadBuffer(buffer); err != nil {
		return fmt.Errorf("set read buffer: %w", err)
	}
	if onlyEnds {
		filter, err := onlyGenerations()
		if err != nil {
			return err
		}
		if err := c.SetBPF(filter); err != nil {
			return fmt.Errorf("set filter: %w", err)
		}
	}
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("join group: %w", err)
	}
	return nil
}

// Run calls doubt, from the calling goroutine, whenever somebody else changed what is ours, with a reason that names the
// culprit if the kernel tells. It returns nil when ctx ends, or an error when the kernel cannot be watched.
func (w *Watch) Run(ctx context.Context, doubt func(string)) error {
	defer w.close()
	for ctx.Err() == nil {
		messages, err := w.receive(ctx, w.details)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			err = w.resume(ctx, doubt)
		case err == nil:
			err = w.read(ctx, messages, doubt)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("watch nf_tables: %w", err)
		}
	}
	return nil
}

// receive waits for messages until ctx ends.
func (w *Watch) receive(ctx context.Context, c *netlink.Conn) ([]netlink.Message, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	return c.Receive()
}

// read takes in messages of commits, and judges those commits that end in them.
func (w *Watch) read(ctx context.Context, messages []netlink.Message, doubt func(string)) error {
	for _, raw := range messages {
		m, ok := ParseMessage(raw)
		switch {
		case !ok:
		case m.Kind != unix.NFT_MSG_NEWGEN:
			w.note(m)
		default:
			if err := w.judge(ctx, m.Generation(raw.Header.PID), doubt); err != nil {
				return err
			}
		}
	}
	return nil
}

// note keeps the first thing that happened to what is ours, unless a whole table went: what it held is told of before.
func (w *Watch) note(m Message) {
	if reason := w.cfg.Touched(m); reason != "" && (w.reason == "" || m.Kind == unix.NFT_MSG_DELTABLE) {
		w.reason = reason
	}
}

// judge ends a commit.
func (w *Watch) judge(ctx context.Context, g Generation, doubt func(string)) error {
	reason := w.reason
	w.reason = ""
	if !g.After(w.last) {
		return nil // judged when the socket had overflown
	}
	if _, err := w.strangers(ctx, g.ID); err != nil {
		return err
	}
	if reason != "" && !w.cfg.Ours(g) {
		doubt(fmt.Sprintf("%v %s", g, reason))
	}
	return nil
}

// strangers reads the ends of commits up to a commit that has happened, and gives the last of them that is
// not ours, or nil.
func (w *Watch) strangers(ctx context.Context, until uint32) (*Generation, error) {
	var stranger *Generation
	for int32(until-w.last) > 0 {
		messages, err := w.receive(ctx, w.generations)
		if errors.Is(err, unix.ENOBUFS) {
			stranger = &Generation{}
			w.last = until // whatever was lost, it is not told twice
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, raw := range messages {
			m, ok := ParseMessage(raw)
			if !ok || m.Kind != unix.NFT_MSG_NEWGEN {
				continue
			}
			g := m.Generation(raw.Header.PID)
			if g.After(w.last) {
				w.last = g.ID
			}
			if !w.cfg.Ours(g) {
				stranger = &g
			}
		}
	}
	return stranger, nil
}

// resume follows an overflow: messages are lost. If all commits until now were ours, that does no
// harm. Otherwise everything is compared.
func (w *Watch) resume(ctx context.Context, doubt func(string)) error {
	_ = w.details.Close()
	details, err := subscribe(w.buffer, false)
	if err != nil {
		return err
	}
	w.details, w.reason = details, ""
	now, err := CurrentGeneration()
	if err != nil {
		return err
	}
	stranger, err := w.strangers(ctx, now)
	if err != nil || stranger == nil {
		return err
	}
	reason := w.cfg.Compare(ctx)
	if reason == "" {
		return nil
	}
	// Whoever hears the doubt reads everything anew: commits until now need no doubt of their own.
	if w.last, err = CurrentGeneration(); err != nil {
		return err
	}
	doubt(fmt.Sprintf("after a commit by %v: %s", stranger, reason))
	return nil
}
