package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// counts tells one number after the other, and the last one for ever.
func counts(numbers ...uint32) func(context.Context) (uint32, error) {
	return func(context.Context) (uint32, error) {
		n := numbers[0]
		if len(numbers) > 1 {
			numbers = numbers[1:]
		}
		return n, nil
	}
}

func TestDrainOfKubeProxyEndsWithTheConnectionsOrTheLimit(t *testing.T) {
	for name, test := range map[string]struct {
		count func(context.Context) (uint32, error)
		limit time.Duration
		took  time.Duration
	}{
		"no connections":           {counts(0), time.Hour, 0},
		"they end":                 {counts(7, 3, 0), time.Hour, 2 * retireAgain},
		"they end never":           {counts(7), 4 * retireAgain, 4 * retireAgain},
		"no longer than the limit": {counts(7), retireAgain + time.Second, retireAgain + time.Second},
		"a short limit":            {counts(7), time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				since := time.Now()
				if err := awaitNone(t.Context(), test.limit, test.count); err != nil {
					t.Error(err)
				}
				if took := time.Since(since); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
			})
		})
	}
}

// Nothing is removed after an error, so neither a kernel that does not tell nor a signal may look like an end.
func TestDrainOfKubeProxyThatFailsIsNoEnd(t *testing.T) {
	silent := errors.New("no answer")
	if err := awaitNone(t.Context(), time.Hour, func(context.Context) (uint32, error) { return 0, silent }); !errors.Is(err, silent) {
		t.Errorf("got %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := awaitNone(ctx, time.Hour, counts(7)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// retirer has connections until some time after it began.
type retirer struct {
	lasts time.Duration
	err   error
	since time.Time
}

func (r *retirer) Retire(_ context.Context, since time.Time) (left bool, err error) {
	r.since = since
	return time.Since(since) < r.lasts, r.err
}

func TestDrainOfSluiceGoesOnUntilNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := &retirer{lasts: 3 * retireAgain}
		if err := retire(t.Context(), r); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != r.lasts || r.since != began {
			t.Errorf("took %v, want %v; it is told that it began at %v, want %v", took, r.lasts, r.since, began)
		}
	})
	if err := retire(t.Context(), &retirer{err: errors.New("busy")}); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("got %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := retire(ctx, &retirer{lasts: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
