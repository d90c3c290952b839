package loop

import "time"

const (
	minRetry = time.Second
	maxRetry = 30 * time.Second
)

// schedule decides when the next Apply of a family is due. It has no clock of its own.
type schedule struct {
	minInterval time.Duration

	started bool
	ended   time.Time // the latest Apply, if one has started
	changed bool      // a snapshot waits that no Apply has seen

	// When not zero, the times of an Apply that failed before, that the dataplane asked for, and
	// that mends what somebody else did.
	retry, again, repair time.Time

	retries  backoff
	repairs  backoff
	repaired time.Time
}

// due is when the next Apply should start, false if none is called for.
func (s *schedule) due(now time.Time) (time.Time, bool) {
	earliest := time.Time{}
	consider := func(t time.Time) {
		if !t.IsZero() && (earliest.IsZero() || t.Before(earliest)) {
			earliest = t
		}
	}
	if s.changed {
		consider(s.notBefore(now))
	}
	if !s.retry.IsZero() {
		consider(s.notBefore(s.retry))
	}
	if !s.again.IsZero() {
		consider(s.notBefore(s.again))
	}
	consider(s.repair)
	return earliest, !earliest.IsZero()
}

// notBefore is t, or later if the minimum interval has not passed then.
func (s *schedule) notBefore(t time.Time) time.Time {
	if free := s.ended.Add(s.minInterval); s.started && free.After(t) {
		return free
	}
	return t
}

// doubt asks for a repair. The first is due at once; further ones are spread out, because whoever
// undoes our work again and again will not be beaten by haste.
func (s *schedule) doubt(now time.Time) {
	s.repair = now
	if s.repaired.IsZero() {
		return
	}
	if now.Sub(s.repaired) > 2*s.repairs.last {
		s.repairs.reset()
	}
	if free := s.repaired.Add(s.repairs.next()); free.After(now) {
		s.repair = free
	}
}

// begin notes that an Apply starts, which serves all that was asked for.
func (s *schedule) begin(now time.Time) {
	s.started = true
	s.changed = false
	if !s.repair.IsZero() {
		s.repaired = now
	}
	s.retry, s.again, s.repair = time.Time{}, time.Time{}, time.Time{}
}

// succeeded notes the end of an Apply that asks to be repeated after again, if that is not 0.
func (s *schedule) succeeded(now time.Time, again time.Duration) {
	s.ended = now
	s.retries.reset()
	if again > 0 {
		s.again = now.Add(again)
	}
}

// failed notes the end of an Apply with an error, and returns how long it will be until the next try.
func (s *schedule) failed(now time.Time) time.Duration {
	s.ended = now
	pause := s.retries.next()
	s.retry = now.Add(pause)
	return pause
}

// backoff doubles from minRetry to maxRetry.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, minRetry), maxRetry)
	return b.last
}

func (b *backoff) reset() { b.last = 0 }
