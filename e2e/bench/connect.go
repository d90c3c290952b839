package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	// burst is how many connections to one target follow each other before it is the next target's turn.
	burst = 50

	connectLimit = 3 * time.Second
)

// The targets of connections.
const (
	viaFirst = iota // the Service whose rule comes first
	viaLast         // the one whose rule comes last
	toPod           // a pod, without a Service
	basePath        // the single DNAT rule of the base line
	basePod         // a pod, on the base line's node
	numTargets
)

// connects holds how long connect() took, by target and round.
type connects [numTargets][][]time.Duration

// all are the samples of all rounds.
func (c connects) all(target int) []time.Duration { return slices.Concat(c[target]...) }

// excess is how much longer the way to a target takes than to another: the median of the rounds' ratios of
// medians. What else the machine does changes all figures from round to round, but hardly within one.
func (c connects) excess(target, base int) float64 {
	var ratios []float64
	for round := range c[target] {
		ratios = append(ratios, ratio(float64(p50(c[target][round])), float64(p50(c[base][round]))))
	}
	return median(ratios)
}

// target is where to connect to, and from which host.
type target struct {
	from *lab.Host
	to   netip.AddrPort
}

// timeConnects connects to all targets n times, in turns, so that what happens to the machine happens to all.
// Each round begins with another target: what one leaves behind hits all of them alike.
func timeConnects(ctx context.Context, targets [numTargets]target, n int) (connects, error) {
	var c connects
	for i, t := range targets {
		if o := t.from.Probe(lab.Probe{To: t.to, Protocol: proxy.TCP, Timeout: connectLimit}); o.Result != lab.Answered {
			return c, fmt.Errorf("target %d, %v: %v", i, t.to, o)
		}
	}
	for round := range (n + burst - 1) / burst {
		if ctx.Err() != nil {
			return c, context.Cause(ctx)
		}
		for turn := range targets {
			i := (round + turn) % numTargets
			took, err := targets[i].connect(burst)
			if err != nil {
				return c, err
			}
			c[i] = append(c[i], took)
		}
	}
	return c, nil
}

// connect connects n times, or a few times less, and says how long each took.
func (t target) connect(n int) ([]time.Duration, error) {
	times := make([]time.Duration, 0, n)
	addr := &unix.SockaddrInet4{Port: int(t.to.Port()), Addr: t.to.Addr().As4()}
	err := t.from.Do(func() error {
		for range n {
			took, err := connectOnce(addr, connectLimit)
			if errors.Is(err, unix.EINTR) {
				continue // a signal of the Go runtime's spoiled it
			}
			if err != nil {
				return fmt.Errorf("connect to %v: %w", t.to, err)
			}
			times = append(times, took)
		}
		return nil
	})
	return times, err
}

// connectOnce times a blocking connect() in the namespace of the calling thread.
func connectOnce(addr unix.Sockaddr, limit time.Duration) (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	// Without a linger the end leaves neither TIME_WAIT nor a tracked connection.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return 0, err
	}
	most := unix.NsecToTimeval(limit.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &most); err != nil {
		return 0, err
	}
	start := time.Now()
	err = unix.Connect(fd, addr)
	return time.Since(start), err
}
