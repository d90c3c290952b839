package metrics

import (
	"context"
	"io"
	"net/http"
	"net/http/pprof"

	"github.com/sluice-proxy/sluice/proxy/httpserver"
)

// ServerConfig says what the metrics address offers beside the metrics.
type ServerConfig struct {
	Addr     string // host:port; empty serves nothing
	HardFail bool   // give up when the address cannot be bound

	Mode string // the answer of /proxyMode

	// Profiling offers /debug/pprof/, and /debug/flags/v for PUT, to clients on a loopback address.
	Profiling bool
	Verbosity http.Handler // of /debug/flags/v; required with Profiling

	// Handlers are further ones by their patterns, which are those of http.ServeMux.
	Handlers map[string]http.Handler
}

// Serve serves the metrics address until ctx ends. When the address cannot be bound it tries
// again, or fails if HardFail says so.
func (m *Metrics) Serve(ctx context.Context, cfg ServerConfig) error {
	return httpserver.Run(ctx, httpserver.Config{
		Name: "metrics", Addr: cfg.Addr, Handler: m.ServerHandler(cfg), HardFail: cfg.HardFail,
	})
}

// ServerHandler answers /metrics, /healthz (that there is an answer, and nothing else), /proxyMode
// and what cfg adds.
func (m *Metrics) ServerHandler(cfg ServerConfig) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", m.Handler())
	mux.Handle("/healthz", text("ok"))
	mux.Handle("/healthz/ping", text("ok"))
	mux.Handle("/proxyMode", text(cfg.Mode))
	for pattern, handler := range cfg.Handlers {
		mux.Handle(pattern, handler)
	}
	if cfg.Profiling {
		local := func(h http.HandlerFunc) http.Handler { return httpserver.LoopbackOnly(h) }
		mux.Handle("/debug/pprof/", local(pprof.Index))
		mux.Handle("/debug/pprof/cmdline", local(pprof.Cmdline))
		mux.Handle("/debug/pprof/profile", local(pprof.Profile))
		mux.Handle("/debug/pprof/symbol", local(pprof.Symbol))
		mux.Handle("/debug/pprof/trace", local(pprof.Trace))
		mux.Handle("PUT /debug/flags/v", httpserver.LoopbackOnly(cfg.Verbosity))
	}
	return mux
}

// text answers with a plain text that has no newline.
func text(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(w, s) // the client may be gone
	})
}
