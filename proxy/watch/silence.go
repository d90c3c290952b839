package watch

import (
	"sync/atomic"
	"time"
)

// heard is when the API server last said something. The zero value is never.
type heard struct{ at atomic.Int64 }

func (h *heard) hear() { h.at.Store(time.Now().UnixNano()) }

// Silence is how long ago that was; false is never.
func (h *heard) Silence() (since time.Duration, ever bool) {
	at := h.at.Load()
	return time.Since(time.Unix(0, at)), at != 0
}

// Silence is for how long the API server has said nothing about each resource that it ever said something about. A watch that
// works brings a bookmark each minute.
func (w *Watcher) Silence() map[string]time.Duration {
	silences := map[string]time.Duration{}
	for _, s := range w.sources() {
		if since, ever := s.store.Silence(); ever {
			silences[s.resource] = since
		}
	}
	return silences
}
