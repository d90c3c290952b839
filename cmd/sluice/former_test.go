package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/loop"
)

// diary is what modes say that something is left of. They do not wait for each other.
type diary struct {
	begun time.Time
	mu    sync.Mutex
	told  []string
}

// take is what was said since it was last asked, sorted.
func (d *diary) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	told := d.told
	d.told = nil
	slices.Sort(told)
	return told
}

// leftover is a mode of which something is left.
type leftover struct {
	proxy.Mode
	name  string
	diary *diary
}

func (l leftover) say(what string) {
	l.diary.mu.Lock()
	defer l.diary.mu.Unlock()
	l.diary.told = append(l.diary.told, time.Since(l.diary.begun).String()+" "+l.name+" "+what)
}

func (l leftover) Name() string                  { return l.name }
func (l leftover) Cleanup(context.Context) error { l.say("cleaned up"); return nil }

// lastingLeftover is one with connections that end with it, which they do after some looks.
type lastingLeftover struct {
	leftover
	looks *int
	err   error
}

func (l lastingLeftover) Yield(context.Context) error { l.say("yields"); return l.err }

func (l lastingLeftover) Retire(_ context.Context, since time.Time) (bool, error) {
	l.say("retires since " + since.Sub(l.diary.begun).String())
	*l.looks--
	return *l.looks > 0, l.err
}

// TestFormerModesGo looks at what happens to other modes, and when.
func TestFormerModesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		diary := &diary{begun: time.Now()}
		looks := 2
		others := []proxy.Mode{leftover{name: "rules", diary: diary}, lastingLeftover{leftover{name: "servers", diary: diary}, &looks, errors.New("on purpose")}}
		want := func(what ...string) {
			t.Helper()
			synctest.Wait()
			if told := diary.take(); !slices.Equal(told, what) {
				t.Errorf("got %q, want %q", told, what)
			}
		}
		makeRoom(ctx, others)
		want("0s servers yields")

		o := newFormerObserver(others, proxy.Families[:])
		o.Applied(ctx, loop.Applied{Family: proxy.IPv4})
		o.Applied(ctx, loop.Applied{Family: proxy.IPv4})
		want()
		o.Applied(ctx, loop.Applied{Family: proxy.IPv6})
		want("0s rules cleaned up", "0s servers retires since 0s")
		o.Applied(ctx, loop.Applied{Family: proxy.IPv6})
		time.Sleep(retireAgain)
		want("5s servers retires since 0s")
		time.Sleep(formerAgain - retireAgain)
		want("5m0s rules cleaned up")
		time.Sleep(retireAgain)
		want("5m5s servers retires since 5m5s")
		time.Sleep(time.Hour)
		want()
		stop()
	})
}
