package loop

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// event is something that happens to a loop, and how long it is quiet after it.
type event struct {
	kind  int // serve, remove, zone, doubt
	name  string
	quiet time.Duration
}

// trouble is how one Apply goes.
type trouble struct {
	takes time.Duration
	fails bool
}

// kernel is a dataplane that holds what was applied last, or nothing known after a failure.
type kernel struct {
	troubles []trouble
	running  bool
	holds    *proxy.Snapshot
	doubted  bool
	doubt    func(string)
	overlap  bool
}

func (k *kernel) Apply(_ context.Context, want *proxy.Snapshot) (proxy.Report, error) {
	k.overlap = k.overlap || k.running
	k.running = true
	defer func() { k.running = false }()
	var t trouble
	if len(k.troubles) > 0 {
		t, k.troubles = k.troubles[0], k.troubles[1:]
	}
	<-time.After(t.takes)
	k.holds = nil
	if t.fails {
		return proxy.Report{}, errors.New("no")
	}
	k.holds, k.doubted = want, false
	return proxy.Report{}, nil
}

func (k *kernel) Resync(string) { k.doubted = true }

func (k *kernel) Watch(ctx context.Context, doubt func(string)) error {
	k.doubt = doubt
	<-ctx.Done()
	return nil
}

// Whatever happens when, in the end the kernel holds what is wanted, and no Apply ran beside another.
func TestEveryStoryEndsWithTheNewestState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		quiet := rapid.Custom(func(rt *rapid.T) time.Duration {
			return rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, 7 * time.Second, time.Minute}).Draw(rt, "quiet")
		})
		events := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) event {
			return event{rapid.IntRange(0, 3).Draw(rt, "kind"), rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "name"), quiet.Draw(rt, "after")}
		}), 1, 20).Draw(rt, "events")
		troubles := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) trouble {
			return trouble{quiet.Draw(rt, "takes"), rapid.Bool().Draw(rt, "fails")}
		}), 0, 20).Draw(rt, "troubles")
		k := &kernel{troubles: troubles}
		inputs := map[string]policy.Input{}
		var last *proxy.Node
		run(t, func(_ *world, cfg *Config) { cfg.Dataplanes[proxy.IPv4] = k }, func(w *world) {
			w.sync()
			for _, e := range events {
				happen(w, k, e, inputs)
				w.after(e.quiet)
			}
			w.after(2 * time.Hour)
			last = w.nodes.Node(proxy.IPv4)
		})
		var list []policy.Input
		for _, in := range inputs {
			list = append(list, in)
		}
		want := desired.Build(last, list)
		if k.overlap {
			rt.Error("two calls of Apply at once")
		}
		if k.holds == nil || k.doubted || !equal(want, k.holds) {
			rt.Errorf("the kernel holds %v (doubted: %v), want %v", k.holds, k.doubted, want)
		}
	})
}

func happen(w *world, k *kernel, e event, inputs map[string]policy.Input) {
	switch e.kind {
	case 0:
		inputs[e.name] = w.changes.serve(e.name)
	case 1:
		gone := policy.Input{Name: proxy.ServiceName{Namespace: "ns", Name: e.name}}
		w.changes.put(gone)
		inputs[e.name] = gone
	case 2:
		w.nodes.setZone(e.name)
		synctest.Wait()
	case 3:
		k.doubt("somebody")
	}
}

func equal(a, b *proxy.Snapshot) bool {
	if a.Len() != b.Len() || !a.Node().Equal(b.Node()) {
		return false
	}
	for name, port := range a.All() {
		if !port.Equal(b.Get(name)) {
			return false
		}
	}
	return true
}
