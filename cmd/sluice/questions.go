package main

import (
	"bytes"
	"context"
	"net/http"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/loop"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// questions answers what root asks about the node. It reads what is immutable, so that nobody waits for it.
type questions struct {
	deaf
	input func(proxy.ServiceName) policy.Input
	relay bool                                              // a relay is told of what is applied
	views [len(proxy.Families)]atomic.Pointer[explain.View] // what was applied last; nil: nothing yet
}

func (q *questions) Applied(_ context.Context, a loop.Applied) {
	q.views[a.Family].Store(&explain.View{Snapshot: a.New, SetAside: a.Report.SetAside, Relay: q.relay, Input: q.input})
}

func (q *questions) view(f proxy.Family) *explain.View { return q.views[f].Load() }

// handler answers questions that come over HTTP.
func (q *questions) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		if err := questionOf(r.URL.Query()).write(&body, q.view); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(body.Bytes()) // the client may be gone
	})
	return mux
}
