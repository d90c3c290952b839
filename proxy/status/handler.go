package status

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/history"
)

// Path is where the handler is to be served, with all below it.
const Path = "/status/"

// Config is what the page shows. All fields are required.
type Config struct {
	Node, Mode, Version string

	// View has what was applied last in a family, nil if that is nothing.
	View    func(proxy.Family) *explain.View
	History *history.History
}

//go:embed page
var files embed.FS

// contentPolicy lets the page load what comes with it and ask where it came from, and nothing else: no script or style within the page, no
// other host, no text that becomes HTML.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// patience is how long a question waits for earlier ones.
const patience = 2 * time.Second

// page answers. What it computes, it computes for one client at a time: many who ask take a single core at most.
type page struct {
	Config
	turn chan struct{}
}

// Handler answers below Path.
func Handler(cfg Config) http.Handler {
	p := &page{Config: cfg, turn: make(chan struct{}, 1)}
	static, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // it is a constant
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, http.StripPrefix(Path, http.FileServerFS(static)))
	for name, answer := range map[string]func(*http.Request) (any, error){
		"summary": p.summary, "syncs": p.syncs, "services": p.services, "service": p.service,
	} {
		mux.Handle("GET "+Path+"data/"+name, p.inTurn(answer))
	}
	return guarded(mux)
}

// guarded has browsers hold the page to its policy, and keep nothing.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// badRequest is an error that is the client's.
type badRequest string

func (e badRequest) Error() string { return string(e) }

// inTurn answers with JSON, one question after the other.
func (p *page) inTurn(answer func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		select {
		case p.turn <- struct{}{}:
		case <-ctx.Done():
			w.Header().Set("Retry-After", "5")
			http.Error(w, "others ask as well", http.StatusServiceUnavailable)
			return
		}
		body, status, err := p.encode(answer, r)
		if err != nil {
			http.Error(w, err.Error(), status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body) // the client may be gone
	})
}

// encode gives the turn back before a slow client reads.
func (p *page) encode(answer func(*http.Request) (any, error), r *http.Request) (body []byte, status int, err error) {
	defer func() { <-p.turn }()
	value, err := answer(r)
	if err != nil {
		if _, theirs := errors.AsType[badRequest](err); theirs {
			return nil, http.StatusBadRequest, err
		}
		return nil, http.StatusInternalServerError, err
	}
	body, err = json.Marshal(value)
	return body, http.StatusInternalServerError, err
}
