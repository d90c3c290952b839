package conntrack

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	// datagramSize holds the largest datagram that the kernel makes for a dump, 32 KiB.
	datagramSize = 64 << 10

	// deleteBatch requests are sent at once. Their acknowledgements must fit into the default
	// receive buffer of a socket, where each counts for about 800 bytes.
	deleteBatch = 128
)

// Kernel is the table of the network namespace that the calling thread is in. It needs
// CAP_NET_ADMIN there. The zero value is ready for use.
type Kernel struct {
	unfiltered atomic.Bool // the kernel has refused a filter
}

// Flows implements Table. The kernel selects the UDP flows, if it is 5.8 or newer.
func (k *Kernel) Flows(ctx context.Context, family proxy.Family) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		err := k.dump(ctx, family, !k.unfiltered.Load(), yield)
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
			// A kernel refuses a filter before it yields anything.
			k.unfiltered.Store(true)
			err = k.dump(ctx, family, false, yield)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(Flow{}, err)
		}
	}
}

// errStopped says that the caller wants no more flows.
var errStopped = errors.New("stopped")

func (k *Kernel) dump(ctx context.Context, family proxy.Family, filter bool, yield func(Flow, error) bool) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.send(ctx, dumpRequest(1, family, filter)); err != nil {
		return err
	}
	interrupted := false
	for {
		done, err := c.receive(ctx, func(m message) (bool, error) {
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch m.typ {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				return true, m.result()
			}
			flow, ok, err := decodeFlow(m.body, family)
			if err == nil && ok && !yield(flow, nil) {
				err = errStopped
			}
			return false, err
		})
		switch {
		case err != nil:
			return err
		case done && interrupted:
			return ErrInterrupted
		case done:
			return nil
		}
	}
}

// Delete implements Table.
func (k *Kernel) Delete(ctx context.Context, family proxy.Family, flows []Flow) (int, error) {
	for _, f := range flows {
		if !family.Has(f.Original.Src.Addr()) || !family.Has(f.Original.Dst.Addr()) {
			return 0, fmt.Errorf("flow %v is not %v", f.Original, family)
		}
	}
	c, err := dial()
	if err != nil {
		return 0, err
	}
	defer c.close()
	deleted := 0
	for start := 0; start < len(flows); start += deleteBatch {
		n, err := c.delete(ctx, family, flows[start:min(start+deleteBatch, len(flows))], uint32(start+1))
		deleted += n
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// conn is a netlink socket. Each use has its own, so that an answer never meets the wrong question
// and the namespace is the one of the calling thread.
type conn struct {
	*socket.Conn
	buf []byte
}

func dial() (*conn, error) {
	s, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, "netlink", nil)
	if err != nil {
		return nil, err
	}
	// Acknowledgements need not repeat the request. Older kernels than 4.3 repeat it.
	_ = s.SetsockoptInt(unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &conn{Conn: s, buf: make([]byte, datagramSize)}, nil
}

// close frees the socket. There is nothing to lose with it.
func (c *conn) close() { _ = c.Close() }

func (c *conn) send(ctx context.Context, b []byte) error {
	return c.Sendto(ctx, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive reads a datagram and visits its messages until one says it was the last, or an error.
func (c *conn) receive(ctx context.Context, visit func(message) (last bool, err error)) (bool, error) {
	n, from, err := c.Recvfrom(ctx, c.buf, 0)
	if err != nil {
		return false, err
	}
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return false, nil // not from the kernel
	}
	for rest := c.buf[:n]; len(rest) > 0; {
		var m message
		if m, rest, err = nextMessage(rest); err != nil {
			return false, err
		}
		if last, err := visit(m); last || err != nil {
			return last, err
		}
	}
	return false, nil
}

// delete sends one request for each flow, numbered from seq, and then reads as many answers.
func (c *conn) delete(ctx context.Context, family proxy.Family, flows []Flow, seq uint32) (int, error) {
	var b []byte
	for i, f := range flows {
		b = appendDelete(b, seq+uint32(i), family, f)
	}
	if err := c.send(ctx, b); err != nil {
		return 0, err
	}
	deleted, answers := 0, 0
	var refused error // the first of perhaps many alike
	for answers < len(flows) {
		_, err := c.receive(ctx, func(m message) (bool, error) {
			if m.typ != unix.NLMSG_ERROR || m.seq-seq >= uint32(len(flows)) {
				return false, fmt.Errorf("unexpected answer of type %d to request %d", m.typ, m.seq)
			}
			answers++
			switch err := m.result(); {
			case err == nil:
				deleted++
			case !errors.Is(err, unix.ENOENT) && refused == nil:
				refused = err
			}
			return false, nil
		})
		if err != nil {
			return deleted, err
		}
	}
	return deleted, refused
}
