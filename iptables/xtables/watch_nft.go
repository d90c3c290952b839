package xtables

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

// nftWatch reads the messages of every commit, and then the end of the commit, which tells whose it was.
//
// A commit can be larger than any buffer. Therefore a second socket gets only the ends of commits: after
// an overflow it tells whether there was anybody but us, and only then tables are compared.
type nftWatch struct {
	runner *Runner
	part   part

	details, generations *netlink.Conn
	buffer               int // of details, in bytes

	last   uint32 // the newest commit that was judged
	reason string // what the commit that is being read did to our part
}

func newNFTWatch(r *Runner, tables []string) (*nftWatch, error) {
	w := &nftWatch{
		runner: r,
		part:   part{family: r.family, tables: tables, prefix: r.cfg.Prefix},
		buffer: detailsBuffer,
	}
	err := w.open()
	if err != nil {
		w.close()
		return nil, fmt.Errorf("watch tables of backend %s: %w", NFT, err)
	}
	return w, nil
}

func (w *nftWatch) open() (err error) {
	if w.generations, err = subscribe(generationsBuffer, true); err != nil {
		return err
	}
	if w.details, err = subscribe(w.buffer, false); err != nil {
		return err
	}
	w.last, err = currentGeneration()
	return err
}

func (w *nftWatch) close() {
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

// currentGeneration asks for the newest commit.
func currentGeneration() (uint32, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN,
			Flags: netlink.Request,
		},
		Data: make([]byte, nfgenmsg),
	})
	if err != nil {
		return 0, fmt.Errorf("get generation: %w", err)
	}
	for _, answer := range answers {
		if m, ok := parseMessage(answer); ok && m.kind == unix.NFT_MSG_NEWGEN {
			return m.number(unix.NFTA_GEN_ID), nil
		}
	}
	return 0, errors.New("get generation: no answer")
}

func (w *nftWatch) run(ctx context.Context, doubt func(string)) error {
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
			return fmt.Errorf("watch tables of backend %s: %w", NFT, err)
		}
	}
	return nil
}

// receive waits for messages until ctx ends.
func (w *nftWatch) receive(ctx context.Context, c *netlink.Conn) ([]netlink.Message, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	return c.Receive()
}

// read takes in messages of commits, and judges those commits that end in them.
func (w *nftWatch) read(ctx context.Context, messages []netlink.Message, doubt func(string)) error {
	for _, raw := range messages {
		m, ok := parseMessage(raw)
		switch {
		case !ok:
		case m.kind != unix.NFT_MSG_NEWGEN:
			if w.reason == "" {
				w.reason = w.part.touched(m)
			}
		default:
			if err := w.judge(ctx, m.generation(raw.Header.PID), doubt); err != nil {
				return err
			}
		}
	}
	return nil
}

// judge ends a commit.
func (w *nftWatch) judge(ctx context.Context, g generation, doubt func(string)) error {
	reason := w.reason
	w.reason = ""
	if !g.after(w.last) {
		return nil // judged when the socket had overflown
	}
	if _, err := w.strangers(ctx, g.id); err != nil {
		return err
	}
	if reason != "" && !w.runner.children.made(g) {
		doubt(fmt.Sprintf("%v %s", g, reason))
	}
	return nil
}

// strangers reads the ends of commits up to a commit that has happened, and gives the last of them that is
// not ours, or nil.
func (w *nftWatch) strangers(ctx context.Context, until uint32) (*generation, error) {
	var stranger *generation
	for int32(until-w.last) > 0 {
		messages, err := w.receive(ctx, w.generations)
		if errors.Is(err, unix.ENOBUFS) {
			stranger = &generation{}
			w.last = until // whatever was lost, it is not told twice
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, raw := range messages {
			m, ok := parseMessage(raw)
			if !ok || m.kind != unix.NFT_MSG_NEWGEN {
				continue
			}
			g := m.generation(raw.Header.PID)
			if g.after(w.last) {
				w.last = g.id
			}
			if !w.runner.children.made(g) {
				stranger = &g
			}
		}
	}
	return stranger, nil
}

// resume follows an overflow: messages are lost. If all commits until now were ours, that does no
// harm. Otherwise the tables are compared.
func (w *nftWatch) resume(ctx context.Context, doubt func(string)) error {
	_ = w.details.Close()
	details, err := subscribe(w.buffer, false)
	if err != nil {
		return err
	}
	w.details, w.reason = details, ""
	now, err := currentGeneration()
	if err != nil {
		return err
	}
	stranger, err := w.strangers(ctx, now)
	if err != nil || stranger == nil {
		return err
	}
	reason := w.compare(ctx)
	if reason == "" {
		return nil
	}
	// Whoever hears the doubt reads everything anew: commits until now need no doubt of their own.
	if w.last, err = currentGeneration(); err != nil {
		return err
	}
	doubt(fmt.Sprintf("after a commit by %v: %s", stranger, reason))
	return nil
}

// compare gives "" if all tables hold what they should.
func (w *nftWatch) compare(ctx context.Context) (first string) {
	w.runner.mu.Lock()
	defer w.runner.mu.Unlock()
	for _, table := range w.part.tables {
		reason, err := w.runner.verify(ctx, table)
		if err != nil {
			reason = fmt.Sprintf("table %s cannot be compared: %v", table, err)
		}
		if first == "" {
			first = reason
		}
	}
	return first
}
