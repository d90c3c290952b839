package faults

import (
	"time"

	"golang.org/x/sys/unix"
)

// clockJump: the machine's clock is set forward, and back. Nothing that Sluice waits for comes sooner or later.
func clockJump(s *story) {
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		s.setClock(by)
		s.load.pass()
		s.moves(s.T, s.remote())
		s.moves(s.T, s.local())
		if err := s.healthy(); err != nil {
			s.Error(err)
		}
	}
	s.wantCalm()
}

// setClock sets it forward by some time, or back by a negative one.
func (s *story) setClock(by time.Duration) {
	s.Helper()
	// Without the reading of the monotonic clock, which is never set: the sum is what the clock on the wall says.
	now := time.Now().Round(0)
	to := unix.NsecToTimespec(now.Add(by).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &to); err != nil {
		s.Fatalf("set clock: %v", err)
	}
	s.Logf("the clock was %v, is %v", now.Format(time.TimeOnly), time.Now().Format(time.TimeOnly))
}
