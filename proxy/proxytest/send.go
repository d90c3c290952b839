package proxytest

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// send sends packets and checks what becomes of them.
func (s *stage) send(step string, packets []packet) {
	s.t.Helper()
	var wait sync.WaitGroup
	check := func(p packet) {
		if err := s.check(p); err != nil {
			s.t.Errorf("%s: %s: got %v", step, p.text, err)
		}
	}
	for _, p := range packets {
		if !p.named() {
			wait.Go(func() { check(p) })
		}
	}
	for _, p := range packets {
		if p.named() {
			check(p)
		}
	}
	wait.Wait()
}

// named tells whether the packet makes or uses an open connection.
func (p packet) named() bool { return p.name != "" || p.again != "" || p.want.like != "" }

// check is nil if a packet, repeated as often as it takes, becomes what is wanted, and that is what package explain says of it.
func (s *stage) check(p packet) error {
	if p.again != "" {
		return s.checkAgain(p)
	}
	if err := s.explained(p); err != nil {
		return err
	}
	if p.name != "" {
		return s.checkOpen(p)
	}
	switch p.want.fate {
	case served:
		return s.checkServed(p)
	case stuck, alike:
		return s.checkStuck(p)
	case crowded:
		return s.checkCrowded(p)
	}
	for range 2 {
		if err := p.want.judge(s, s.probe(p)); err != nil {
			return err
		}
	}
	return nil
}

// probe tries the connection once.
func (s *stage) probe(p packet) lab.Outcome {
	return untilPortIsFree(func() lab.Outcome { return host(s.lab, p.from).Probe(s.probeOf(p)) })
}

// maxPorts is how many ports are tried: another program of the host, such as a relay, may have one that was not given to it here.
const maxPorts = 5

// untilPortIsFree tries again where the client's port was taken, so that nothing was sent.
func untilPortIsFree(try func() lab.Outcome) lab.Outcome {
	for n := 1; ; n++ {
		o := try()
		if n == maxPorts || o.Result != lab.Broken || !errors.Is(o.Err, syscall.EADDRINUSE) {
			return o
		}
	}
}

func (s *stage) probeOf(p packet) lab.Probe {
	from := p.source
	if s.OwnPorts && from.Port() == 0 && (p.protocol == proxy.TCP || p.protocol == proxy.UDP) {
		from = netip.AddrPortFrom(from.Addr(), ownPort())
	}
	return lab.Probe{To: p.to, Protocol: p.protocol, From: from, Timeout: s.timeout(p.want)}
}

var portsGiven atomic.Uint32

// ownPort is a port in the range that clients choose from by themselves: nobody listens there.
func ownPort() uint16 {
	const first, count = 33000, 27000
	return first + uint16(portsGiven.Add(1)%count)
}

func (s *stage) timeout(w want) time.Duration {
	if w.fate == dropped {
		return moment
	}
	return s.patience()
}

// judge compares one outcome with what is wanted. An error says what came instead.
func (w want) judge(s *stage, o lab.Outcome) error {
	ok := false
	switch w.fate {
	case served, stuck:
		t, found := w.targetOf(o)
		return s.judgeSource(o, t, found)
	case refused:
		ok = o.Result == lab.Refused
	case dropped:
		ok = o.Result == lab.Silence
	case reset:
		ok = o.Result == lab.Reset
	case unhandled:
		ok = o.Result == lab.Answered && (o.Server == s.lab.Node.Name || o.Server == s.lab.World.Name)
	case ignored:
		ok = o.Result == lab.Reset || o.Result == lab.Refused || want{fate: unhandled}.judge(s, o) == nil
	case crowded:
		ok = o.Result == lab.Answered && o.Server == s.lab.Crowd.Name
	}
	if !ok {
		return fmt.Errorf("%v", o)
	}
	return nil
}

// targetOf is the target that answered.
func (w want) targetOf(o lab.Outcome) (target, bool) {
	if o.Result != lab.Answered {
		return target{}, false
	}
	i := slices.IndexFunc(w.targets, func(t target) bool { return t.host == o.Server && t.port == o.Backend.Port() })
	if i < 0 {
		return target{}, false
	}
	return w.targets[i], true
}

func (s *stage) judgeSource(o lab.Outcome, t target, found bool) error {
	if !found {
		return fmt.Errorf("%v", o)
	}
	kept := o.Source.Addr() == o.Client.Addr()
	ours := s.nodeHas(o.Source.Addr()) || s.nodeWasGiven(o.Source.Addr())
	if !t.masquerade && !kept || t.masquerade && !ours {
		return fmt.Errorf("%v (client %v)", o, o.Client)
	}
	return nil
}

// The least number of connections that must agree, so that a backend that should not be there, with an
// equal share, is missed once in 65,536 times at most; and how likely a sound dataplane may
// miss a backend.
const (
	leastProbes = 16
	missed      = 1e-7
)

// mostProbes is how many connections find n equal backends, but for the chance of missed.
func mostProbes(n int) int {
	if n == 1 {
		return leastProbes
	}
	return leastProbes + int(math.Log(missed/float64(n))/math.Log(1-1/float64(n)))
}

// checkServed connects until every target was seen.
func (s *stage) checkServed(p packet) error {
	seen := map[target]*ports{}
	for n := 0; n < leastProbes || len(seen) < len(p.want.targets); n++ {
		if n == mostProbes(len(p.want.targets)) {
			return fmt.Errorf("only %d of %d backends after %d connections", len(seen), len(p.want.targets), n)
		}
		o := s.probe(p)
		if err := p.want.judge(s, o); err != nil {
			return err
		}
		t, _ := p.want.targetOf(o)
		if seen[t] == nil {
			seen[t] = &ports{}
		}
		seen[t].add(o)
	}
	for t, ports := range seen {
		if err := ports.judge(t); err != nil {
			return err
		}
	}
	return nil
}

// ports counts how often a backend saw the client's own port. Masquerading picks random ports, so it is
// seen even if it gives the address that the client has anyway; without it a port changes
// only if it is taken.
type ports struct{ kept, changed int }

func (c *ports) add(o lab.Outcome) {
	if o.Source.Port() == o.Client.Port() {
		c.kept++
	} else {
		c.changed++
	}
}

func (c *ports) judge(t target) error {
	switch {
	case c.kept+c.changed < 3:
		return nil
	case t.masquerade && c.changed == 0:
		return fmt.Errorf("%s saw the client's own ports: not masqueraded", t.host)
	case !t.masquerade && c.kept == 0:
		return fmt.Errorf("%s saw other ports than the client's: masqueraded", t.host)
	}
	return nil
}

// checkStuck connects often, and wants one backend.
func (s *stage) checkStuck(p packet) error {
	backend := lab.Outcome{}
	if p.want.fate == alike {
		backend = s.open[p.want.like].last
	}
	for range leastProbes {
		o := s.probe(p)
		if p.want.fate == stuck {
			if err := p.want.judge(s, o); err != nil {
				return err
			}
		}
		if backend.Result != lab.Answered {
			backend = o
		}
		if o.Result != lab.Answered || o.Backend != backend.Backend {
			return fmt.Errorf("%v, not by %v", o, backend.Backend)
		}
	}
	return nil
}

func (s *stage) checkCrowded(p packet) error {
	seen := map[string]bool{}
	for range 40 * p.want.atLeast {
		o := s.probe(p)
		if err := p.want.judge(s, o); err != nil {
			return err
		}
		if seen[o.Backend.String()] = true; len(seen) == p.want.atLeast {
			return nil
		}
	}
	return fmt.Errorf("%d backends", len(seen))
}

// checkOpen connects once and keeps the connection.
func (s *stage) checkOpen(p packet) error {
	var conn *lab.Conn
	o := untilPortIsFree(func() (o lab.Outcome) {
		conn, o = host(s.lab, p.from).Connect(s.probeOf(p))
		return o
	})
	if conn == nil {
		return fmt.Errorf("%v", o)
	}
	if old := s.open[p.name]; old != nil {
		old.conn.Close()
	}
	s.open[p.name] = &open{conn, o}
	return p.want.judge(s, o)
}

// checkAgain uses an open connection.
func (s *stage) checkAgain(p packet) error {
	c := s.open[p.again]
	if c == nil {
		return fmt.Errorf("no such connection")
	}
	o := c.conn.Again(s.timeout(p.want))
	if p.want.fate == same {
		if o.Result != lab.Answered || o.Backend != c.last.Backend || o.Source != c.last.Source {
			return fmt.Errorf("%v, before %v", o, c.last)
		}
		return nil
	}
	if o.Result == lab.Answered {
		c.last = o
	}
	return p.want.judge(s, o)
}
