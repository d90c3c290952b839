package faults

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// The load of every story, in both families: pod, node and outside each make new TCP connections and UDP flows, to the
// ClusterIP and the NodePort of web in turn, longConns connections say something every longPause, each
// address of the outside is a client of sticky, and a sender streams to stream from one port. An emulated machine gets as much
// in more time: what it cannot carry would only make everything else wait.
var (
	freshPause  = lab.Patient(50 * time.Millisecond)
	longPause   = lab.Patient(time.Second)
	stickyPause = lab.Patient(250 * time.Millisecond)
	streamPause = lab.Patient(10 * time.Millisecond)
)

const (
	freshWorkers = 2 // for each client, protocol and family
	longConns    = 100
	streamPort   = 7777

	// answerLimit is for an answer that should come: a connection whose first packets are lost gets through in that
	// time, and is not lost.
	answerLimit = 20 * time.Second

	// resend is when a client of UDP asks again: a machine that is out of breath loses datagrams anywhere.
	resend = 3 * time.Second

	// A packet is lost now and then on a busy machine, so that a connection is answered to the second one only. One of
	// shareResent may be, or fewResent if these are more: of the load, less than what comes in half a second.
	shareResent = 50
	fewResent   = 30

	// settled is how many connections of each kind pass before a story goes on.
	settled = 60
)

// kind is a part of the load.
type kind string

const (
	fresh    kind = "new"      // to the ClusterIP
	nodePort kind = "nodeport" // new, to the NodePort
	long     kind = "long"
	sticky   kind = "sticky"
	stream   kind = "stream"
)

// tally counts the connections, or what was said over them, of one kind.
type tally struct {
	made, failed, excused int
	resent                int // answered, but not to the first packet, without an excuse

	// The first few of each.
	failures, excuses []string
}

// traffic is a running load.
type traffic struct {
	t    *testing.T
	w    *world
	own  map[string]*ports // of hosts, by name; nil where the kernel picks ports
	stop chan struct{}
	over sync.Once
	done sync.WaitGroup

	mu      sync.Mutex
	tallies map[kind]*tally
	excuses map[kind]int // how often an excuse began or ended: odd while a fault makes that kind fail
	longs   []*lab.Conn
	lists   int          // how often the kernel's lists of clients were lost
	renewed int          // how often the long connections were given up for new ones
	dropped atomic.Int64 // connections that were

	sinks     []*sink
	flowsLost bool // the kernel forgot where they went
	sources   int
	since     time.Time
}

func (w *world) startTraffic(t *testing.T) *traffic {
	t.Helper()
	return w.startTrafficOf(t, freshWorkers, w.kernel.ownPorts)
}

// startTrafficOf is startTraffic with so many that make new connections, for each client, protocol and family, from own ports or
// from those that the kernel picks.
func (w *world) startTrafficOf(t *testing.T, workers int, ownPorts bool) *traffic {
	t.Helper()
	tr := &traffic{
		t: t, w: w, stop: make(chan struct{}), tallies: map[kind]*tally{}, excuses: map[kind]int{},
	}
	hosts := []*lab.Host{w.visitor(), w.Node, w.Client}
	if ownPorts {
		tr.own = portsOf(hosts)
	}
	for _, k := range []kind{fresh, nodePort, long, sticky, stream} {
		tr.tallies[k] = &tally{}
	}
	t.Cleanup(func() {
		tr.halt()
		for _, c := range tr.longs {
			c.Close()
		}
	})
	tr.awaitServed()
	tr.since = time.Now()
	for _, f := range proxy.Families {
		for _, h := range hosts {
			for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP} {
				for range workers {
					tr.every(freshPause, tr.freshly(h, f, p))
				}
			}
		}
		for _, a := range w.Client.Addrs(f) {
			tr.every(stickyPause, tr.stickily(a, f))
		}
		tr.startStream(f)
	}
	for i := range longConns {
		tr.every(longPause, tr.longly(i))
	}
	tr.pass()
	return tr
}

// awaitServed waits until one connection of each kind succeeds.
func (tr *traffic) awaitServed() {
	for _, f := range proxy.Families {
		for _, to := range []netip.AddrPort{clusterIP(tr.w.web, f), clusterIP(tr.w.sticky, f), tr.w.nodePort(f, proxy.TCP)} {
			eventually(tr.t, fmt.Sprintf("%v is served", to), func() error {
				if o := tr.w.Client.Probe(lab.Probe{To: to, Protocol: proxy.TCP, Timeout: answerLimit}); o.Result != lab.Answered {
					return fmt.Errorf("%v", o)
				}
				return nil
			})
		}
	}
}

// every does something again and again until the load ends. Not everybody does so at the same time.
func (tr *traffic) every(pause time.Duration, do func()) {
	tr.sources++
	first := time.After(time.Duration(tr.sources) * (pause/longConns + time.Millisecond) % pause)
	tr.done.Go(func() {
		select {
		case <-tr.stop:
			return
		case <-first:
		}
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			do()
			select {
			case <-tr.stop:
				return
			case <-tick.C:
			}
		}
	})
}

// freshly makes new connections.
func (tr *traffic) freshly(from *lab.Host, f proxy.Family, p proxy.Protocol) func() {
	targets, kinds, n := []netip.AddrPort{clusterIP(tr.w.web, f), tr.w.nodePort(f, p)}, []kind{fresh, nodePort}, 0
	return func() {
		n++
		to, k := targets[n%len(targets)], kinds[n%len(kinds)]
		began := tr.moment(k)
		o := tr.probe(from, lab.Probe{To: to, Protocol: p, Timeout: answerLimit, Resend: resend})
		tr.count(k, o.Result == lab.Answered, began, "%s to %v over %v: %v", from.Name, to, p, o)
		if o.Resent {
			tr.countResent(k, began)
		}
	}
}

// longly keeps a connection and says something over it; after a failure it makes another.
func (tr *traffic) longly(i int) func() {
	from := []*lab.Host{tr.w.visitor(), tr.w.Node, tr.w.Client}[i%3]
	to := clusterIP(tr.w.web, proxy.Families[i%2])
	var conn *lab.Conn
	var was lab.Outcome
	renewed := 0
	return func() {
		if now := tr.renewals(); now != renewed {
			if renewed = now; conn != nil {
				tr.drop(conn)
				conn = nil
			}
			tr.dropped.Add(1)
		}
		began := tr.moment(long)
		var o lab.Outcome
		if conn == nil {
			conn, o = tr.connect(from, lab.Probe{To: to, Protocol: proxy.TCP, Timeout: answerLimit})
			was, was.Resent = o, false
			o = was
			tr.keep(conn)
		} else {
			o = conn.Again(answerLimit)
		}
		ok := o.Result == lab.Answered && o == was
		tr.count(long, ok, began, "%s at %v to %v: %v, was %v", from.Name, was.Client, to, o, was)
		if !ok {
			conn = nil // which is closed when the load ends
		}
	}
}

// forget lets clients of sticky have another backend from now on.
func (tr *traffic) forget() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.lists++
}

func (tr *traffic) listsLost() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.lists
}

// renew lets every long connection end and another one begin, and waits for that.
func (tr *traffic) renew() {
	tr.t.Helper()
	tr.mu.Lock()
	tr.renewed++
	tr.mu.Unlock()
	before := tr.dropped.Load()
	eventually(tr.t, "long connections are given up", func() error {
		if n := tr.dropped.Load() - before; n < longConns {
			return fmt.Errorf("%d, want %d", n, longConns)
		}
		return nil
	})
}

// speak waits until something was said over every long connection.
func (tr *traffic) speak() {
	tr.t.Helper()
	before := tr.made()[long]
	eventually(tr.t, "long connections are used", func() error {
		if n := tr.made()[long] - before; n < 2*longConns {
			return fmt.Errorf("%d times, want %d", n, 2*longConns)
		}
		return nil
	})
}

func (tr *traffic) renewals() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.renewed
}

// drop closes a connection now.
func (tr *traffic) drop(conn *lab.Conn) {
	tr.mu.Lock()
	tr.longs = slices.DeleteFunc(tr.longs, func(c *lab.Conn) bool { return c == conn })
	tr.mu.Unlock()
	conn.Close()
}

// keep closes a connection when the load has ended.
func (tr *traffic) keep(conn *lab.Conn) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if conn != nil {
		tr.longs = append(tr.longs, conn)
	}
}

// stickily connects from one address to sticky, which must always lead to the same backend.
func (tr *traffic) stickily(client netip.Addr, f proxy.Family) func() {
	was, lists := "", 0
	return func() {
		if now := tr.listsLost(); now != lists {
			was, lists = "", now
		}
		began := tr.moment(sticky)
		o := tr.probe(tr.w.Client, lab.Probe{
			To: clusterIP(tr.w.sticky, f), Protocol: proxy.TCP, From: netip.AddrPortFrom(client, 0), Timeout: answerLimit,
		})
		tr.count(sticky, o.Result == lab.Answered && (o.Server == was || was == ""), began, "%v: %v, was %s", client, o, was)
		if o.Result == lab.Answered {
			was = o.Server
		}
	}
}

// count takes a connection into account that began at a moment.
func (tr *traffic) count(k kind, ok bool, began int, format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	c := tr.tallies[k]
	c.made++
	format, args = "%.1fs: "+format, append([]any{time.Since(tr.since).Seconds()}, args...)
	switch {
	case ok:
	case began%2 == 1 || began != tr.excuses[k]:
		c.excused++
		c.excuses = note(c.excuses, format, args)
	default:
		c.failed++
		c.failures = note(c.failures, format, args)
	}
}

// countResent takes a new connection into account that was answered late.
func (tr *traffic) countResent(k kind, began int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if began%2 == 0 && began == tr.excuses[k] {
		tr.tallies[k].resent++
	}
}

func note(examples []string, format string, args []any) []string {
	if len(examples) < 3 {
		examples = append(examples, fmt.Sprintf(format, args...))
	}
	return examples
}

// moment tells excuses from the times before, between and after them.
func (tr *traffic) moment(k kind) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.excuses[k]
}

func (tr *traffic) excused(k kind) bool { return tr.moment(k)%2 == 1 }

// excuse lets kinds of connections fail until over is called: those that overlap that time.
func (tr *traffic) excuse(kinds ...kind) (over func()) {
	turn := func() {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for _, k := range kinds {
			tr.excuses[k]++
		}
	}
	turn()
	return turn
}

// cut lets open connections end, and one-way streams move, until over is called, which waits for every long one to be used
// again.
func (tr *traffic) cut() (over func()) {
	tr.flowsLost = true
	turn := tr.excuse(long)
	return func() {
		tr.t.Helper()
		tr.pass(4)
		turn()
	}
}

func (tr *traffic) made() map[kind]int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	n := map[kind]int{}
	for k, c := range tr.tallies {
		n[k] = c.made
	}
	return n
}

// pass waits until the load made more connections of each kind. Once may be replaced by a number of
// times.
func (tr *traffic) pass(times ...int) {
	tr.t.Helper()
	n := settled
	for _, factor := range times {
		n *= factor
	}
	start := tr.made()
	eventually(tr.t, "load goes on", func() error {
		for k, now := range tr.made() {
			if now-start[k] < n && !tr.excused(k) {
				return fmt.Errorf("%d %s connections, want %d", now-start[k], k, n)
			}
		}
		return nil
	})
}

// failures says how many connections failed with an excuse so far.
func (tr *traffic) failures() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	text := "failed so far:"
	for _, k := range slices.Sorted(maps.Keys(tr.tallies)) {
		text += fmt.Sprintf(" %s %d", k, tr.tallies[k].excused)
	}
	return text
}

// lost counts the connections that failed without an excuse so far.
func (tr *traffic) lost() (n int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, c := range tr.tallies {
		n += c.failed
	}
	return n
}

// lostOnes are the first few of them, of each kind, since it was asked before.
func (tr *traffic) lostOnes() (all []string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, c := range tr.tallies {
		all = append(all, c.failures...)
		c.failures = nil
	}
	return all
}

func (tr *traffic) halt() {
	tr.over.Do(func() { close(tr.stop) })
	tr.done.Wait()
}

// end ends the load, says what it did, and fails the test if a connection was lost without an excuse.
func (tr *traffic) end() {
	tr.t.Helper()
	tr.halt()
	took := time.Since(tr.since)
	for _, s := range tr.sinks {
		s.settle(tr)
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.t.Logf("load: %.0f new connections a second", float64(tr.tallies[fresh].made+tr.tallies[nodePort].made)/took.Seconds())
	for _, k := range slices.Sorted(maps.Keys(tr.tallies)) {
		c := tr.tallies[k]
		tr.t.Logf("%-8s %6d made, %d failed %q, %d failed with an excuse %q", k, c.made, c.failed, c.failures, c.excused, c.excuses)
		if c.failed > 0 {
			tr.t.Errorf("%d %s connections were lost", c.failed, k)
		}
		if c.resent > 0 {
			tr.t.Logf("%-8s %6d were answered to a second packet only", k, c.resent)
		}
		if most := max(fewResent, c.made/shareResent); c.resent > most {
			tr.t.Errorf("%d of %d %s connections were answered to a second packet only, want at most %d: they were not served for a while",
				c.resent, c.made, k, most)
		}
	}
}
