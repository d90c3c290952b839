package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

const (
	healthzURL = "http://192.168.50.1:10256/healthz"
	livezURL   = "http://192.168.50.1:10256/livez"
	metricsURL = "http://127.0.0.1:10249/metrics"
	modeURL    = "http://127.0.0.1:10249/proxyMode"
)

var get = suite.Get

// wantStatus asks the node's health server from the outside.
func (w *world) wantStatus(url string, status int) error {
	a, err := get(w.Client, url)
	if err == nil && a.Status != status {
		err = fmt.Errorf("%s: %d, want %d: %s", url, a.Status, status, a.Body)
	}
	return err
}

// metric is the value of a series, written as /metrics writes it, and 0 if there is none.
func (w *world) metric(t *testing.T, series string) float64 {
	t.Helper()
	a, err := get(w.Node, metricsURL)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(a.Body) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatalf("metric %s: %v", series, err)
			}
			return v
		}
	}
	return 0
}
