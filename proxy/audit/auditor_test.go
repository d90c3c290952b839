package audit

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

// world is a kernel in which each look finds what the test says.
type world struct {
	applied *Applied
	looks   int
	find    func(look int) []proxy.Difference
	wanted  []*proxy.Snapshot
	err     error
}

func (w *world) Inspect(_ context.Context, want *proxy.Snapshot) ([]proxy.Difference, error) {
	w.looks++
	w.wanted = append(w.wanted, want)
	return w.find(w.looks), w.err
}

func (w *world) auditor() *Auditor {
	a := New(map[proxy.Family]proxy.Inspector{proxy.IPv4: w}, func(proxy.Family) *Applied { return w.applied })
	a.pause = 0
	return a
}

var (
	node = &proxy.Node{Family: proxy.IPv4}
	port = proxy.ServicePortName{Namespace: "ns", Name: "web", Port: "http", Protocol: proxy.TCP}
)

func snapshot() *proxy.Snapshot {
	return proxy.NewSnapshot(node, map[proxy.ServicePortName]*proxy.ServicePort{port: {Name: port}})
}

// next is the snapshot after a change of the Service.
func (w *world) next() {
	w.applied = &Applied{Snapshot: w.applied.Snapshot.Next(node, map[proxy.ServicePortName]*proxy.ServicePort{port: {Name: port}})}
}

func missing(objects ...string) (list []proxy.Difference) {
	for _, o := range objects {
		list = append(list, proxy.Difference{Object: o})
	}
	return list
}

func TestOnlyWhatIsSeenTwiceCounts(t *testing.T) {
	for name, test := range map[string]struct {
		find  func(w *world, look int) []proxy.Difference
		want  []proxy.Difference
		looks int
	}{
		"nothing is wrong": {func(*world, int) []proxy.Difference { return nil }, nil, 1},
		"something is":     {func(*world, int) []proxy.Difference { return missing("a") }, missing("a"), 2},
		"a change was on its way": {func(_ *world, look int) []proxy.Difference {
			if look == 1 {
				return missing("a", "b")
			}
			return missing("b", "c")
		}, missing("b"), 2},
		"it was on its way, and nothing else": {func(_ *world, look int) []proxy.Difference {
			if look == 1 {
				return missing("a")
			}
			return nil
		}, nil, 2},
		"changes come all the time": {func(w *world, look int) []proxy.Difference {
			w.next()
			return append(missing("a"), missing(strings.Repeat("x", look))...)
		}, missing("a"), maxLooks},
		"it is of a Service that changes": {func(w *world, look int) []proxy.Difference {
			if look == 2 {
				w.next()
			}
			return []proxy.Difference{{Object: "a", Service: "ns/other ns/web:http"}, {Object: "b", Service: "ns/other"}}
		}, []proxy.Difference{{Object: "b", Service: "ns/other"}}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{applied: &Applied{Snapshot: snapshot()}}
			w.find = func(look int) []proxy.Difference { return test.find(w, look) }
			got, err := w.auditor().Compare(t.Context(), proxy.IPv4)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if w.looks != test.looks {
				t.Errorf("%d looks, want %d", w.looks, test.looks)
			}
		})
	}
}

func TestWhatIsSetAsideIsNotMissed(t *testing.T) {
	w := &world{applied: &Applied{Snapshot: snapshot(), SetAside: []proxy.SetAside{{Name: port, Err: errors.New("refused")}}}}
	w.find = func(int) []proxy.Difference { return nil }
	if _, err := w.auditor().Compare(t.Context(), proxy.IPv4); err != nil {
		t.Fatal(err)
	}
	if w.wanted[0].Len() != 0 {
		t.Error("the kernel was asked for a ServicePort that it refused")
	}
}

func TestComparisonsThatFail(t *testing.T) {
	w := &world{find: func(int) []proxy.Difference { return nil }}
	if _, err := w.auditor().Compare(t.Context(), proxy.IPv4); !errors.Is(err, ErrNothingApplied) {
		t.Errorf("before the first Apply: %v", err)
	}
	w.applied, w.err = &Applied{Snapshot: snapshot()}, errors.New("no kernel")
	if _, err := w.auditor().Compare(t.Context(), proxy.IPv4); !errors.Is(err, w.err) {
		t.Errorf("got %v", err)
	}
}

func TestOneLooksAtATime(t *testing.T) {
	w := &world{applied: &Applied{Snapshot: snapshot()}}
	looking, goOn := make(chan bool), make(chan bool)
	w.find = func(int) []proxy.Difference { looking <- true; <-goOn; return nil }
	a := w.auditor()
	done := make(chan error)
	go func() { _, err := a.Compare(t.Context(), proxy.IPv4); done <- err }()
	<-looking
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := a.Compare(ctx, proxy.IPv4); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one got %v", err)
	}
	goOn <- true
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestReport(t *testing.T) {
	r := NewReport("nftables")
	text := func(most int) string {
		var b strings.Builder
		if err := r.WriteText(&b, most); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got := text(0); got != "" {
		t.Errorf("without differences: %q", got)
	}
	r.Add(proxy.IPv6, []proxy.Difference{
		{Kind: proxy.Altered, Object: "map m { a }", Detail: "x instead of y", Service: "ns/web"}, {Kind: proxy.Foreign, Object: "chain c"},
	})
	want := `FAMILY  IS       OBJECT       SERVICE  DETAIL
IPv6    altered  map m { a }  ns/web   x instead of y
IPv6    foreign  chain c      -        
`
	if diff := cmp.Diff(want, text(2)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := text(1); !strings.HasSuffix(got, "y\n… and 1 more, which --all shows\n") {
		t.Errorf("cut: %q", got)
	}
	var b strings.Builder
	if err := r.WriteJSON(&b); err != nil || !strings.Contains(b.String(), `"kind": "foreign"`) {
		t.Errorf("%v: %s", err, b.String())
	}
}

func TestRoundsGoOn(t *testing.T) {
	w := &world{applied: &Applied{Snapshot: snapshot()}}
	w.find = func(look int) []proxy.Difference {
		if look%4 < 2 { // a comparison with differences is two looks
			return nil
		}
		return missing("a")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var rounds []int
	w.auditor().Rounds(ctx, proxy.IPv4, time.Millisecond, func(r Round) {
		if r.Err != nil {
			t.Error(r.Err)
		}
		if rounds = append(rounds, len(r.Found)); len(rounds) == 4 {
			stop()
		}
	})
	if diff := cmp.Diff([]int{0, 1, 0, 0}, rounds); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPausesAreSpread(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := spread(10 * time.Minute)
		least, most = min(least, d), max(most, d)
	}
	if least < 9*time.Minute || most > 11*time.Minute || most-least < time.Minute {
		t.Errorf("from %v to %v", least, most)
	}
}

func TestTextOfDifferences(t *testing.T) {
	list := append(missing("a", "b", "c", "d"), proxy.Difference{Kind: proxy.Altered, Object: "e", Service: "ns/web", Detail: "1 instead of 2"})
	want := "missing a; missing b; missing c; missing d; altered e of ns/web (1 instead of 2)"
	if got := Text(list); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Text(append(list, list...)); got != want+"; and 5 more" {
		t.Errorf("got %q", got)
	}
}
