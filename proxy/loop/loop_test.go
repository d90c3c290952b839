package loop

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/policy"
	"github.com/sluice-proxy/sluice/proxy/track"
)

const interval = 10 * time.Second // the minimum interval of every test

// changes is a tracker that is told inputs.
type changes struct {
	lock    sync.Mutex
	pending chan struct{}
	batch   track.Batch
}

func (c *changes) Pending() <-chan struct{} { return c.pending }

func (c *changes) Take() track.Batch {
	c.lock.Lock()
	defer c.lock.Unlock()
	batch := c.batch
	c.batch = track.Batch{}
	return batch
}

// serve makes a Service of that name exist, with an address of each family that depends on its
// first letter.
func (c *changes) serve(name string) policy.Input {
	in := policy.Input{Name: proxy.ServiceName{Namespace: "ns", Name: name}, Service: &policy.Service{
		Ports:      []policy.Port{{Protocol: proxy.TCP, Port: 80}},
		ClusterIPs: [2]netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, name[0]}), netip.AddrFrom16([16]byte{0xfd, 15: name[0]})},
	}}
	c.put(in)
	return in
}

func (c *changes) put(in policy.Input) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.batch.Inputs = append(c.batch.Inputs, in)
	c.batch.Triggers = append(c.batch.Triggers, time.Now())
	select {
	case c.pending <- struct{}{}:
	default:
	}
}

// nodes are facts that a test sets.
type nodes struct {
	lock    sync.Mutex
	changed chan struct{}
	zone    string
}

func (n *nodes) Changed() <-chan struct{} { return n.changed }

func (n *nodes) Node(f proxy.Family) *proxy.Node {
	n.lock.Lock()
	defer n.lock.Unlock()
	return &proxy.Node{Family: f, Name: "n1", Zone: n.zone}
}

func (n *nodes) setZone(zone string) {
	n.lock.Lock()
	defer n.lock.Unlock()
	n.zone = zone
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// call is what a dataplane was asked.
type call struct {
	At       time.Duration // since the start of the test
	Services int           // in the snapshot
	Resync   string        // the reason, if a Resync went before
}

// dataplane notes its calls. A test may make them take long, fail or ask to be repeated.
type dataplane struct {
	began time.Time
	apply func(ctx context.Context, number int) (proxy.Report, error)

	lock   sync.Mutex
	calls  []call
	resync string
	doubt  func(string)
}

func (d *dataplane) Apply(ctx context.Context, want *proxy.Snapshot) (proxy.Report, error) {
	d.lock.Lock()
	d.calls = append(d.calls, call{time.Since(d.began), want.Len(), d.resync})
	d.resync = ""
	number := len(d.calls)
	d.lock.Unlock()
	if d.apply == nil {
		return proxy.Report{}, nil
	}
	return d.apply(ctx, number)
}

func (d *dataplane) Resync(reason string) { d.resync = reason }

func (d *dataplane) taken() []call {
	d.lock.Lock()
	defer d.lock.Unlock()
	calls := d.calls
	d.calls = nil
	return calls
}

// watchedDataplane lets a test cause doubt.
type watchedDataplane struct {
	*dataplane
	watch func(ctx context.Context, number int) error
	runs  int
}

func (d *watchedDataplane) Watch(ctx context.Context, doubt func(string)) error {
	d.runs++
	d.doubt = doubt
	if d.watch != nil {
		return d.watch(ctx, d.runs)
	}
	<-ctx.Done()
	return nil
}

// record is an Observer that notes everything.
type record struct {
	lock   sync.Mutex
	events []string
}

func (r *record) note(format string, args ...any) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

func (r *record) Queued(f proxy.Family) { r.note("queued %v", f) }
func (r *record) Contested(_ context.Context, f proxy.Family, conflicts []desired.Conflict) {
	r.note("contested %v %d", f, len(conflicts))
}
func (r *record) Doubted(f proxy.Family, reason string) { r.note("doubted %v: %s", f, reason) }
func (r *record) Applied(_ context.Context, a Applied) {
	r.note("applied %v %d after %d, triggers %d", a.Family, a.New.Len(), a.Old.Len(), len(a.Triggers))
}
func (r *record) Failed(_ context.Context, f Failed) { r.note("failed %v: %v", f.Family, f.Err) }

func (r *record) taken() []string {
	r.lock.Lock()
	defer r.lock.Unlock()
	events := r.events
	r.events = nil
	return events
}

// world is a loop that runs in a bubble of synctest.
type world struct {
	t       *testing.T
	began   time.Time
	changes *changes
	nodes   *nodes
	synced  chan struct{}
	v4, v6  *dataplane
	record  *record
	stop    context.CancelFunc
	ended   chan struct{}
}

// run makes a world whose dataplanes change has prepared, runs its loop, and story in a bubble.
func run(t *testing.T, prepare func(w *world, cfg *Config), story func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(klog.NewContext(t.Context(), logr.Discard()))
		began := time.Now()
		w := &world{
			t:       t,
			began:   began,
			changes: &changes{pending: make(chan struct{}, 1)},
			nodes:   &nodes{changed: make(chan struct{}, 1)},
			synced:  make(chan struct{}),
			v4:      &dataplane{began: began},
			v6:      &dataplane{began: began},
			record:  &record{},
			stop:    stop,
			ended:   make(chan struct{}),
		}
		cfg := Config{
			Changes:     w.changes,
			Nodes:       w.nodes,
			Synced:      w.synced,
			Dataplanes:  map[proxy.Family]proxy.Dataplane{proxy.IPv4: w.v4},
			MinInterval: interval,
			Observers:   []Observer{w.record},
		}
		if prepare != nil {
			prepare(w, &cfg)
		}
		go func() {
			defer close(w.ended)
			New(cfg).Run(ctx)
		}()
		story(w)
		stop()
		<-w.ended
	})
}

// after lets time pass, and returns when everything has come to rest.
func (w *world) after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (w *world) sync() {
	close(w.synced)
	synctest.Wait()
}

func (w *world) wantCalls(d *dataplane, want ...call) {
	w.t.Helper()
	if diff := cmp.Diff(want, d.taken()); diff != "" {
		w.t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func (w *world) wantEvents(want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.record.taken()); diff != "" {
		w.t.Errorf("events (-want +got):\n%s", diff)
	}
}

func both(w *world, cfg *Config) { cfg.Dataplanes[proxy.IPv6] = w.v6 }

func TestNothingIsAppliedBeforeEverythingIsKnown(t *testing.T) {
	run(t, both, func(w *world) {
		w.changes.serve("a")
		w.nodes.setZone("z")
		w.after(time.Hour)
		w.wantCalls(w.v4)
		w.sync()
		w.wantCalls(w.v4, call{At: time.Hour, Services: 1})
		w.wantCalls(w.v6, call{At: time.Hour, Services: 1})
	})
}

func TestEmptyClusterIsAppliedToo(t *testing.T) {
	run(t, nil, func(w *world) {
		w.sync()
		w.wantCalls(w.v4, call{})
		w.wantEvents("queued IPv4", "queued IPv4", "applied IPv4 0 after 0, triggers 0")
	})
}

func TestIdleLoopAppliesAtOnceAndBusyOneBatches(t *testing.T) {
	run(t, func(w *world, _ *Config) {
		w.v4.apply = func(context.Context, int) (proxy.Report, error) {
			<-time.After(2 * time.Second)
			return proxy.Report{}, nil
		}
	}, func(w *world) {
		w.sync() // 0 s to 2 s
		w.after(time.Minute)
		for _, name := range []string{"a", "b", "c"} {
			w.changes.serve(name)
			w.after(time.Second)
		}
		w.after(time.Minute)
		w.wantCalls(w.v4,
			call{At: 0},
			call{At: time.Minute, Services: 1},
			call{At: time.Minute + 2*time.Second + interval, Services: 3}) // counted from the end
	})
}

// A snapshot that another replaces before it is applied was made in vain.
func TestStreamOfChangesMakesNoSnapshotInVain(t *testing.T) {
	run(t, nil, func(w *world) {
		w.sync()
		w.after(time.Minute)
		w.record.taken()
		for i := range 50 {
			w.changes.serve(string(rune('A' + i)))
			w.after(interval / 5)
		}
		w.after(time.Minute)
		queued, applied := 0, 0
		for _, event := range w.record.taken() {
			if strings.HasPrefix(event, "queued") {
				queued++
			} else {
				applied++
			}
		}
		// The builder says so and the worker, each once.
		if queued != 2*applied || applied < 10 || applied > 12 {
			t.Errorf("%d orders for %d snapshots", queued, applied)
		}
		if calls := w.v4.taken(); calls[len(calls)-1].Services != 50 {
			t.Errorf("the last snapshot has %d services", calls[len(calls)-1].Services)
		}
	})
}

func TestChangeDuringAnApplyIsNotLost(t *testing.T) {
	release := make(chan struct{})
	run(t, func(w *world, _ *Config) {
		release = make(chan struct{})
		w.v4.apply = func(_ context.Context, number int) (proxy.Report, error) {
			if number == 1 {
				<-release
			}
			return proxy.Report{}, nil
		}
	}, func(w *world) {
		w.sync()
		for _, name := range []string{"a", "b"} {
			w.changes.serve(name)
			w.after(interval + time.Second)
		}
		w.record.taken()
		close(release)
		w.after(time.Hour)
		end := 2 * (interval + time.Second)
		w.wantCalls(w.v4, call{At: 0}, call{At: end + interval, Services: 2})
		w.wantEvents("applied IPv4 0 after 0, triggers 0", "queued IPv4", "queued IPv4", "applied IPv4 2 after 0, triggers 2")
	})
}

func TestFamiliesDoNotWaitForEachOther(t *testing.T) {
	run(t, func(w *world, cfg *Config) {
		both(w, cfg)
		w.v4.apply = func(ctx context.Context, _ int) (proxy.Report, error) {
			<-ctx.Done()
			return proxy.Report{}, ctx.Err()
		}
	}, func(w *world) {
		w.sync()
		w.after(time.Minute)
		w.changes.serve("a")
		w.after(time.Minute)
		w.wantCalls(w.v4, call{At: 0})
		w.wantCalls(w.v6, call{At: 0}, call{At: time.Minute, Services: 1})
	})
}

func TestFailureIsRetriedWithBackoff(t *testing.T) {
	run(t, func(w *world, cfg *Config) {
		cfg.MinInterval = 0
		w.v4.apply = func(_ context.Context, number int) (proxy.Report, error) {
			if number <= 8 {
				return proxy.Report{}, errors.New("no")
			}
			return proxy.Report{}, nil
		}
	}, func(w *world) {
		w.sync()
		w.after(time.Hour)
		seconds := []int{0, 1, 3, 7, 15, 31, 61, 91, 121}
		var want []call
		for _, s := range seconds {
			want = append(want, call{At: time.Duration(s) * time.Second})
		}
		w.wantCalls(w.v4, want...)
		events := w.record.taken()
		if diff := cmp.Diff("applied IPv4 0 after 0, triggers 0", events[len(events)-1]); diff != "" || len(events) != 11 {
			t.Errorf("got %q", events)
		}
	})
}

func TestRetryUsesTheNewestSnapshotAndAChangeHastensIt(t *testing.T) {
	run(t, func(w *world, cfg *Config) {
		cfg.MinInterval = 2 * time.Second
		w.v4.apply = func(_ context.Context, number int) (proxy.Report, error) {
			if number <= 5 {
				return proxy.Report{}, errors.New("no")
			}
			return proxy.Report{}, nil
		}
	}, func(w *world) {
		w.sync() // fails at 0, 2 (not 1: the minimum interval), 4, 8
		w.after(9 * time.Second)
		w.changes.serve("a") // would be retried at 16
		w.after(time.Hour)   // fails at 10, then waits the fifth pause, 16 s
		w.wantCalls(w.v4,
			call{At: 0}, call{At: 2 * time.Second}, call{At: 4 * time.Second}, call{At: 8 * time.Second},
			call{At: 10 * time.Second, Services: 1}, call{At: 26 * time.Second, Services: 1})
	})
}

func TestDataplaneMayAskToBeCalledAgain(t *testing.T) {
	run(t, func(w *world, _ *Config) {
		w.v4.apply = func(_ context.Context, number int) (proxy.Report, error) {
			return proxy.Report{Again: []time.Duration{time.Minute, time.Second, 0}[min(number, 3)-1]}, nil
		}
	}, func(w *world) {
		w.sync()
		w.after(time.Hour)
		w.wantCalls(w.v4, call{At: 0}, call{At: time.Minute}, call{At: time.Minute + interval})
	})
}

func watched(w *world, cfg *Config) {
	cfg.Dataplanes[proxy.IPv4] = &watchedDataplane{dataplane: w.v4}
}

func TestDoubtIsRepairedAtOnceAndThenWithBackoff(t *testing.T) {
	run(t, watched, func(w *world) {
		w.sync()
		w.after(time.Minute)
		w.wantCalls(w.v4, call{At: 0})
		w.record.taken()
		for range 30 {
			w.v4.doubt("flushed") // a second after the other, and always again
			w.after(time.Second)
		}
		var at []time.Duration
		for _, c := range w.v4.taken() {
			at = append(at, c.At-time.Minute)
			if c.Resync != "flushed" {
				t.Errorf("call at %v without Resync", c.At)
			}
		}
		want := []time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("repairs (-want +got):\n%s", diff)
		}
		w.after(time.Hour) // the last repair and then quiet
		w.v4.taken()
		now := time.Since(w.began)
		w.v4.doubt("flushed")
		w.v4.doubt("flushed twice")
		w.after(0)
		w.wantCalls(w.v4, call{At: now, Resync: "flushed"})
	})
}

func TestDoubtDoesNotDelayChanges(t *testing.T) {
	run(t, watched, func(w *world) {
		w.sync()
		w.after(time.Minute)
		for range 20 {
			w.v4.doubt("flushed")
			w.after(time.Second)
		}
		w.v4.taken() // the next repair would be half a minute after the last
		w.changes.serve("a")
		w.after(6 * time.Second)
		w.wantCalls(w.v4, call{At: time.Minute + 25*time.Second, Services: 1, Resync: "flushed"})
	})
}

func TestDoubtBeforeTheFirstApplyIsNoNews(t *testing.T) {
	run(t, func(w *world, cfg *Config) {
		cfg.Dataplanes[proxy.IPv4] = &watchedDataplane{dataplane: w.v4, watch: func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return nil
		}}
	}, func(w *world) {
		w.sync()
		w.wantCalls(w.v4, call{At: 0})
	})
}

func TestEndOfWatchIsDoubtAndItIsWatchedAgain(t *testing.T) {
	run(t, func(w *world, cfg *Config) {
		cfg.Dataplanes[proxy.IPv4] = &watchedDataplane{dataplane: w.v4, watch: func(ctx context.Context, number int) error {
			if number == 1 {
				<-time.After(time.Minute)
				return errors.New("socket closed")
			}
			<-ctx.Done()
			return nil
		}}
	}, func(w *world) {
		w.sync()
		w.after(time.Hour)
		w.wantCalls(w.v4, call{At: 0}, call{At: time.Minute + time.Second, Resync: Unseen})
	})
}

func TestNewFactsOfTheNodeAreApplied(t *testing.T) {
	run(t, both, func(w *world) {
		w.sync()
		w.after(time.Minute)
		w.v4.taken()
		w.nodes.setZone("z2")
		w.after(0)
		w.wantCalls(w.v4, call{At: time.Minute})
	})
}

func TestChangeWithoutEffectIsNotApplied(t *testing.T) {
	run(t, both, func(w *world) {
		w.changes.serve("a")
		w.sync()
		w.after(time.Minute)
		w.v4.taken()
		w.v6.taken()
		w.record.taken()
		w.changes.serve("a") // equal to what is there
		w.after(time.Hour)
		w.wantCalls(w.v4)
		w.wantCalls(w.v6)
		w.wantEvents()
	})
}

func TestConflictsAreToldWhenTheyChange(t *testing.T) {
	run(t, nil, func(w *world) {
		for _, name := range []string{"a1", "a2", "b"} { // two of them with one address
			w.changes.serve(name)
		}
		w.sync()
		w.wantEvents("contested IPv4 1", "queued IPv4", "queued IPv4", "applied IPv4 2 after 0, triggers 3")
		w.changes.serve("c")
		w.after(time.Minute)
		w.wantEvents("queued IPv4", "queued IPv4", "applied IPv4 3 after 2, triggers 1")
		w.changes.put(policy.Input{Name: proxy.ServiceName{Namespace: "ns", Name: "a1"}})
		w.after(time.Minute)
		w.wantEvents("contested IPv4 0", "queued IPv4", "queued IPv4", "applied IPv4 3 after 3, triggers 1")
	})
}

func TestStopEndsAnApplyAndIsNoFailure(t *testing.T) {
	run(t, func(w *world, _ *Config) {
		w.v4.apply = func(ctx context.Context, _ int) (proxy.Report, error) {
			<-ctx.Done()
			return proxy.Report{}, ctx.Err()
		}
	}, func(w *world) {
		w.sync()
		w.record.taken()
		w.stop()
		<-w.ended
		w.wantEvents()
	})
}

func TestStopBeforeEverythingIsKnown(t *testing.T) {
	run(t, nil, func(w *world) {
		w.stop()
		<-w.ended
		w.wantCalls(w.v4)
	})
}

// Triggers of snapshots that were never applied belong to the one that replaced them.
func TestTriggersSurviveFailures(t *testing.T) {
	run(t, func(w *world, _ *Config) {
		w.v4.apply = func(_ context.Context, number int) (proxy.Report, error) {
			if number == 2 || number == 3 {
				return proxy.Report{}, errors.New("no")
			}
			return proxy.Report{}, nil
		}
	}, func(w *world) {
		w.sync()
		w.after(time.Minute)
		w.changes.serve("a") // fails at once
		w.after(time.Second)
		w.changes.serve("b") // fails, too
		w.after(time.Hour)
		events := w.record.taken()
		if got, want := events[len(events)-1], "applied IPv4 2 after 0, triggers 2"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
