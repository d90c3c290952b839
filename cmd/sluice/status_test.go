package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/proxy/history"
	"github.com/sluice-proxy/sluice/proxy/metrics"
	"github.com/sluice-proxy/sluice/proxy/status"
)

func TestWhoGetsTheStatusPage(t *testing.T) {
	const near, far = "127.0.0.1:4000", "192.0.2.1:4000"
	for value, want := range map[config.StatusPage]map[string]int{
		config.StatusOn:    {near: http.StatusOK, far: http.StatusOK},
		config.StatusLocal: {near: http.StatusOK, far: http.StatusForbidden},
		config.StatusOff:   {near: http.StatusNotFound, far: http.StatusNotFound},
	} {
		p := &proxier{
			cfg: configOf(t, "--status-page="+string(value)), questions: &questions{}, history: history.New(time.Now),
			metrics: metrics.New(metrics.Config{Mode: "ipvs"}),
		}
		handler := p.metrics.ServerHandler(metrics.ServerConfig{Handlers: p.metricsHandlers()})
		for client, code := range want {
			for _, path := range []string{status.Path, status.Path + "data/services"} {
				r, w := httptest.NewRequest(http.MethodGet, path, nil), httptest.NewRecorder()
				r.RemoteAddr = client
				if handler.ServeHTTP(w, r); w.Code != code {
					t.Errorf("%s, %s from %s: %d, want %d", value, path, client, w.Code, code)
				}
			}
		}
	}
}
