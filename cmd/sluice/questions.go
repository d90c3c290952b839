package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/audit"
	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/loop"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// questions answers what root asks about the node. It reads what is immutable, so that nobody waits for it.
type questions struct {
	deaf
	mode  string
	audit *audit.Auditor
	input func(proxy.ServiceName) policy.Input
	relay bool                                              // a relay is told of what is applied
	views [len(proxy.Families)]atomic.Pointer[explain.View] // what was applied last; nil: nothing yet
}

func (q *questions) Applied(_ context.Context, a loop.Applied) {
	q.views[a.Family].Store(&explain.View{Snapshot: a.New, SetAside: a.Report.SetAside, Relay: q.relay, Input: q.input})
}

func (q *questions) view(f proxy.Family) *explain.View { return q.views[f].Load() }

// applied is what the auditor compares the kernel with.
func (q *questions) applied(f proxy.Family) *audit.Applied {
	view := q.view(f)
	if view == nil {
		return nil
	}
	return &audit.Applied{Snapshot: view.Snapshot, SetAside: view.SetAside}
}

// differences compares the kernel with what was applied, in all families.
func (q *questions) differences(ctx context.Context) (audit.Report, error) {
	report := audit.NewReport(q.mode)
	for _, f := range q.audit.Families() {
		list, err := q.audit.Compare(ctx, f)
		if err != nil {
			return report, fmt.Errorf("compare the kernel in %v: %w", f, err)
		}
		report.Add(f, list)
	}
	return report, nil
}

// look looks at the kernel for an answer.
func (q *questions) look(ctx context.Context) look {
	return func(f proxy.Family, port *proxy.ServicePort, frontends []proxy.Frontend, client netip.Addr) *explain.Kernel {
		objects, err := q.audit.Show(ctx, f, port, frontends)
		if errors.Is(err, audit.ErrCannotShow) {
			return nil
		}
		k := &explain.Kernel{Mode: q.mode, Objects: objects, Err: err}
		if err == nil && client.IsValid() {
			k.Keeps, k.Err = q.audit.Recall(ctx, f, port, frontends[0], client)
		}
		return k
	}
}

// handler answers questions that come over HTTP.
func (q *questions) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		agrees, err := questionOf(r.URL.Query()).write(&body, q.view, q.look(r.Context()))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if !agrees {
			w.Header().Set(kernelDiffers, "yes")
		}
		_, _ = w.Write(body.Bytes()) // the client may be gone
	})
	mux.HandleFunc("GET /diff", func(w http.ResponseWriter, r *http.Request) {
		report, err := q.differences(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_ = report.WriteJSON(w) // the client may be gone
	})
	return mux
}
