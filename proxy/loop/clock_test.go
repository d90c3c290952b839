package loop

import (
	"testing"
	"time"
	"unsafe"
)

// jumped is a moment as time.Now gives it once somebody has set the clock of the machine: the monotonic reading goes on.
// It leans on the inside of a time.Time, and therefore checks what it made.
func jumped(t *testing.T, now time.Time, by time.Duration) time.Time {
	t.Helper()
	const secondsShift = 30 // of the word that holds wall seconds above nanoseconds
	shifted := now
	*(*uint64)(unsafe.Pointer(&shifted)) += uint64(by/time.Second) << secondsShift
	if shifted.Sub(now) != 0 || shifted.Round(0).Sub(now.Round(0)) != by {
		t.Fatalf("%v is not %v with another wall clock", shifted, now)
	}
	return shifted
}

// TestScheduleIgnoresTheWallClock sets the clock an hour forward, then a day back, between an Apply and whatever follows.
func TestScheduleIgnoresTheWallClock(t *testing.T) {
	const interval, again = 10 * time.Second, 40 * time.Second
	for name, step := range map[string]struct {
		after func(s *schedule, end time.Time) // what happens after an Apply
		want  time.Duration                    // until the next
	}{
		"change":  {func(s *schedule, _ time.Time) { s.succeeded(s.ended, 0); s.changed = true }, interval},
		"again":   {func(s *schedule, _ time.Time) { s.succeeded(s.ended, again) }, again},
		"failure": {func(s *schedule, _ time.Time) { s.failed(s.ended) }, interval},
		"repair":  {func(s *schedule, end time.Time) { s.doubt(s.ended); s.begin(s.ended); s.doubt(end) }, minRetry},
	} {
		for _, jump := range []time.Duration{0, time.Hour, -24 * time.Hour} {
			start := time.Now()
			s := schedule{minInterval: interval, started: true, ended: start}
			later := jumped(t, start, jump)
			step.after(&s, later)
			due, ok := s.due(later)
			if wait := due.Sub(later); !ok || wait != step.want {
				t.Errorf("%s, clock set by %v: next Apply in %v, want %v", name, jump, wait, step.want)
			}
		}
	}
}
