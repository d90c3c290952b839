package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"k8s.io/component-base/logs"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/proxy/httpserver"
	"github.com/sluice-proxy/sluice/proxy/metrics"
	"github.com/sluice-proxy/sluice/proxy/report"
	"github.com/sluice-proxy/sluice/proxy/status"
)

// serveHealth answers health checks of the node until ctx ends. An error ends the proxy.
func (p *proxier) serveHealth(ctx context.Context) error {
	err := p.health.Serve(ctx, p.cfg.HealthzAddr, p.cfg.HardFail)
	return p.hardFailure("FailedToStartProxierHealthcheck", err)
}

// serveMetrics answers on the metrics address until ctx ends. An error ends the proxy.
func (p *proxier) serveMetrics(ctx context.Context) error {
	err := p.metrics.Serve(ctx, metrics.ServerConfig{
		Addr: p.cfg.MetricsAddr, HardFail: p.cfg.HardFail, Mode: p.mode.name, Profiling: p.cfg.Profiling, Verbosity: http.HandlerFunc(setVerbosity),
		Handlers: p.metricsHandlers(),
	})
	return p.hardFailure("FailedToStartMetricServer", err)
}

// metricsHandlers are those of the metrics address, beside its own.
func (p *proxier) metricsHandlers() map[string]http.Handler {
	handlers := map[string]http.Handler{"/configz": configz(p.cfg, p.mode)}
	page := status.Handler(status.Config{
		Node: p.cfg.Node.Name, Mode: p.mode.name, Version: version(), View: p.questions.view, History: p.history,
	})
	switch p.cfg.StatusPage {
	case config.StatusOn:
		handlers[status.Path] = page
	case config.StatusLocal:
		handlers[status.Path] = httpserver.LoopbackOnly(page)
	case config.StatusOff:
	}
	return handlers
}

func (p *proxier) hardFailure(reason string, err error) error {
	if err != nil {
		p.nodeEvents(report.Event{Warning: true, Reason: reason, Action: "StartKubeProxy", Note: err.Error()})
	}
	return err
}

// configz answers with the configuration that is in force, as kube-proxy words it.
func configz(cfg *config.Config, m mode) http.Handler {
	body, err := configuration(cfg, m)
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(body) // the client may be gone
	})
}

// configuration is what is in force, in JSON.
func configuration(cfg *config.Config, m mode) ([]byte, error) {
	inForce := cfg.Kube.DeepCopy()
	inForce.Mode = v1alpha1.ProxyMode(m.name)
	return json.Marshal(map[string]any{v1alpha1.GroupName: inForce})
}

// setVerbosity sets how much is logged to the number in the body, until the process ends.
func setVerbosity(w http.ResponseWriter, r *http.Request) {
	level, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16))
	if err == nil {
		var said string
		if said, err = logs.GlogSetter(string(level)); err == nil {
			_, _ = io.WriteString(w, said)
			return
		}
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
}

// features are the gates in the words of the metrics.
func features(gates []config.Gate) []metrics.Feature {
	var list []metrics.Feature
	for _, g := range gates {
		list = append(list, metrics.Feature(g))
	}
	return list
}
