package faults

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// sink is the end of a stream of datagrams of one family: all the places where they may arrive.
type sink struct {
	family proxy.Family
	sent   atomic.Int64
	loose  atomic.Int64 // sent while losing them was excused

	mu  sync.Mutex
	got map[string]map[uint64]bool // by receiver
}

// startStream sends datagrams from one port, with no answer to any. Each must arrive, and all at one backend.
func (tr *traffic) startStream(f proxy.Family) {
	s := &sink{family: f, got: map[string]map[uint64]bool{}}
	tr.sinks = append(tr.sinks, s)
	for _, h := range []*lab.Host{tr.w.local(), tr.w.remote()} {
		s.receive(tr, h)
	}
	from := netip.AddrPortFrom(tr.w.Client.Addr(f), streamPort)
	var conn net.Conn
	err := tr.w.Client.Do(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(clusterIP(tr.w.stream, f)))
		return err
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() { tr.halt(); _ = conn.Close() })
	tr.every(streamPause, func() {
		n := s.sent.Add(1)
		if tr.excused(stream) {
			s.loose.Add(1)
		}
		// An ICMP error for an earlier datagram is reported by the next write, which then sends nothing.
		if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, uint64(n))); err != nil {
			_, _ = conn.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
		}
		tr.count(stream, true, 0, "")
	})
}

// receive notes what arrives at a host until the test ends.
func (s *sink) receive(tr *traffic, h *lab.Host) {
	var conn *net.UDPConn
	at := netip.AddrPortFrom(h.Addr(s.family), sinkPort)
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	var done sync.WaitGroup
	tr.t.Cleanup(func() { _ = conn.Close(); done.Wait() })
	done.Go(func() {
		for b := make([]byte, 64); ; {
			n, err := conn.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if n == 8 {
				s.note(h.Name, binary.BigEndian.Uint64(b))
			}
		}
	})
}

func (s *sink) note(host string, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got[host] == nil {
		s.got[host] = map[uint64]bool{}
	}
	s.got[host][n] = true
}

// missing counts the datagrams that arrived nowhere.
func (s *sink) missing() (n int64, hosts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = s.sent.Load()
	for host, got := range s.got {
		n -= int64(len(got))
		hosts = append(hosts, host)
	}
	return n, hosts
}

// underway says how many datagrams of each stream have not arrived yet.
func (tr *traffic) underway() string {
	var all []string
	for _, s := range tr.sinks {
		n, hosts := s.missing()
		all = append(all, fmt.Sprintf("%d of %d datagrams of the %v stream arrived nowhere yet, others at %v", n, s.sent.Load(), s.family, hosts))
	}
	return strings.Join(all, "; ")
}

// settle waits for what is on its way and takes the rest for lost.
func (s *sink) settle(tr *traffic) {
	tr.t.Helper()
	eventually(tr.t, fmt.Sprintf("the datagrams of the %v stream arrive", s.family), func() error {
		missing, hosts := s.missing()
		if missing > s.loose.Load() {
			return fmt.Errorf("%d of %d are missing, %d with an excuse", missing, s.sent.Load(), s.loose.Load())
		}
		if len(hosts) > 1 && !tr.flowsLost {
			tr.t.Errorf("the %v stream changed its backend: %v", s.family, hosts)
		}
		return nil
	})
	missing, _ := s.missing()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.tallies[stream].excused += int(missing)
}

const (
	flowPause  = 5 * time.Millisecond
	retryPause = 50 * time.Millisecond
	maxFlows   = 1000
)

// flows are clients that keep to one UDP socket until it is answered, as resolvers, phones and log shippers do. A
// flow that began while no rule was there must not be left to its fate.
type flows struct {
	w        *world
	cancel   context.CancelFunc
	done     sync.WaitGroup
	opened   atomic.Int64
	answered atomic.Int64
}

// openFlows opens new flows to web all the time.
func (tr *traffic) openFlows() *flows {
	ctx, cancel := context.WithCancel(tr.t.Context())
	fl := &flows{w: tr.w, cancel: cancel}
	tr.t.Cleanup(func() { cancel(); fl.done.Wait() })
	fl.done.Go(func() {
		tick := time.NewTicker(flowPause)
		defer tick.Stop()
		for n := 0; n < maxFlows; n++ {
			select {
			case <-tr.stop:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			f := proxy.Families[n%2]
			to := []netip.AddrPort{clusterIP(tr.w.web, f), tr.w.nodePort(f, proxy.UDP)}[n/2%2]
			fl.opened.Add(1)
			fl.done.Go(func() { fl.persist(tr.t.Context(), to) })
		}
	})
	return fl
}

// persist asks until it is answered.
func (fl *flows) persist(ctx context.Context, to netip.AddrPort) {
	conn, err := fl.w.Client.DialContext(ctx, "udp", to.String())
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	for b := make([]byte, 256); ctx.Err() == nil; {
		_, _ = conn.Write([]byte("?")) // errors are answers to earlier datagrams
		_ = conn.SetReadDeadline(time.Now().Add(retryPause))
		if n, err := conn.Read(b); err == nil && n > 0 {
			fl.answered.Add(1)
			return
		}
	}
}

// end opens no more flows and waits until each is answered.
func (fl *flows) end(tr *traffic) {
	tr.t.Helper()
	fl.cancel()
	eventually(tr.t, "flows from before the repair are answered", func() error {
		if missing := fl.opened.Load() - fl.answered.Load(); missing > 0 {
			return fmt.Errorf("%d of %d are not", missing, fl.opened.Load())
		}
		return nil
	})
	tr.t.Logf("flows  %6d made, all answered", fl.opened.Load())
}
