package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/loop"
)

// leftover is a mode of which something is left.
type leftover struct {
	proxy.Mode
	name  string
	told  *[]string
	begun time.Time
}

func (l leftover) say(what string) {
	*l.told = append(*l.told, time.Since(l.begun).String()+" "+l.name+" "+what)
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
	l.say("retires since " + since.Sub(l.begun).String())
	*l.looks--
	return *l.looks > 0, l.err
}

// TestFormerModesGo looks at what happens to other modes, and when.
func TestFormerModesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var told []string
		looks := 2
		ruled := leftover{name: "rules", told: &told, begun: time.Now()}
		others := []proxy.Mode{ruled, lastingLeftover{leftover{name: "servers", told: &told, begun: time.Now()}, &looks, errors.New("on purpose")}}
		want := func(what ...string) {
			t.Helper()
			synctest.Wait()
			slices.Sort(told)
			if !slices.Equal(told, what) {
				t.Errorf("got %q, want %q", told, what)
			}
			told = nil
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
