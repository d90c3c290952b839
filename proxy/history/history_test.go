package history

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/loop"
)

var empty = proxy.NewSnapshot(&proxy.Node{Family: proxy.IPv6}, nil)

func applied(r proxy.Report, took time.Duration, triggers ...time.Time) loop.Applied {
	return loop.Applied{Family: proxy.IPv6, New: empty, Report: r, Took: took, Triggers: triggers}
}

func TestASyncIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, now := New(time.Now), time.Now()
		h.Applied(t.Context(), applied(proxy.Report{
			Full: true, Bytes: 7, Transactions: 2, SetAside: make([]proxy.SetAside, 3),
			Tables: []proxy.TableCount{{Objects: 10, Writes: 4}, {Objects: 20, Writes: 5}},
		}, time.Second, now.Add(-time.Second), now.Add(-3*time.Second)))
		h.Failed(t.Context(), loop.Failed{Err: errors.New("no memory"), Took: time.Minute})
		want := []Sync{
			{Number: 1, Family: "IPv6", Ended: now, Took: time.Second, Delay: 3 * time.Second, Full: true, Objects: 30, Writes: 9, Bytes: 7, Transactions: 2, SetAside: 3},
			{Number: 2, Family: "IPv4", Ended: now, Took: time.Minute, Error: "no memory"},
		}
		if diff := cmp.Diff(want, h.Since(0)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestOnlyTheNewestAreRemembered(t *testing.T) {
	h := New(time.Now)
	for range 3*kept + 5 {
		h.Applied(t.Context(), applied(proxy.Report{}, 0))
	}
	for after, want := range map[uint64]struct {
		n     int
		first uint64
	}{
		0:            {kept, 2*kept + 6},
		2*kept + 5:   {kept, 2*kept + 6},
		3*kept + 3:   {2, 3*kept + 4},
		3*kept + 5:   {0, 0},
		3*kept + 100: {0, 0}, // of an earlier process, which had done more
	} {
		got := h.Since(after)
		if len(got) != want.n || want.n > 0 && (got[0].Number != want.first || got[want.n-1].Number != 3*kept+5) {
			t.Errorf("after %d: %d from %+v", after, len(got), got[:min(1, len(got))])
		}
	}
}

// A doubt is over with the first sync that succeeds after it.
func TestWhatIsKnownOfTheKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, began := New(time.Now), time.Now()
		is := func(want Kernel) {
			t.Helper()
			if diff := cmp.Diff(want, h.Kernel(proxy.IPv6)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		}
		at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
		is(Kernel{})
		h.Queued(proxy.IPv6)
		time.Sleep(time.Second)
		h.Queued(proxy.IPv6)
		is(Kernel{Waiting: at(0)})
		h.Failed(t.Context(), loop.Failed{Family: proxy.IPv6, Err: errors.New("lock")})
		time.Sleep(time.Second)
		h.Failed(t.Context(), loop.Failed{Family: proxy.IPv6, Err: errors.New("memory")})
		is(Kernel{Waiting: at(0), Failing: at(1), Error: "memory"})
		h.Applied(t.Context(), applied(proxy.Report{Full: true}, time.Second))
		is(Kernel{Applied: at(2), Compared: at(2)})
		time.Sleep(time.Second)
		h.Applied(t.Context(), applied(proxy.Report{}, time.Second))
		is(Kernel{Applied: at(3), Compared: at(2)})

		h.Doubted(proxy.IPv6, "nft flushed")
		is(Kernel{Applied: at(3), Compared: at(2), Doubts: 1, Last: &Doubt{At: at(3), Reason: "nft flushed"}})
		time.Sleep(2 * time.Second)
		h.Applied(t.Context(), applied(proxy.Report{Full: true}, time.Second))
		is(Kernel{Applied: at(5), Compared: at(5), Doubts: 1, Last: &Doubt{At: at(3), Reason: "nft flushed", Repaired: at(5)}})
		if k := h.Kernel(proxy.IPv4); k != (Kernel{}) {
			t.Errorf("IPv4: %+v", k)
		}
	})
}

func TestTheLastAuditIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(time.Now)
		h.Audited(proxy.IPv6, 0, errors.New("busy"))
		before := h.Kernel(proxy.IPv6).Audit
		h.Audited(proxy.IPv6, 3, nil)
		if diff := cmp.Diff([]*Audit{{At: time.Now(), Error: "busy"}, {At: time.Now(), Differences: 3}}, []*Audit{before, h.Kernel(proxy.IPv6).Audit}); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if a := h.Kernel(proxy.IPv4).Audit; a != nil {
			t.Errorf("IPv4: %+v", a)
		}
	})
}

func TestLongTextsAreCut(t *testing.T) {
	h := New(time.Now)
	h.Failed(context.Background(), loop.Failed{Err: errors.New(strings.Repeat("ä", 4000))})
	text := h.Since(0)[0].Error
	if len(text) > longest+10 || !utf8.ValidString(text) || !strings.HasSuffix(text, "ä …") {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}
