package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	healthzURL = "http://192.168.50.1:10256/healthz"
	livezURL   = "http://192.168.50.1:10256/livez"
	metricsURL = "http://127.0.0.1:10249/metrics"
	modeURL    = "http://127.0.0.1:10249/proxyMode"
)

// answer is a reply by HTTP.
type answer struct {
	status int
	header http.Header
	body   string
}

// get asks from a host.
func get(from *lab.Host, url string) (answer, error) {
	client := &http.Client{Timeout: answerLimit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = from.Do(func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		},
	}}
	r, err := client.Get(url)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	return answer{r.StatusCode, r.Header, string(body)}, err
}

// wantStatus asks the node's health server from the outside.
func (w *world) wantStatus(url string, status int) error {
	a, err := get(w.Client, url)
	if err == nil && a.status != status {
		err = fmt.Errorf("%s: %d, want %d: %s", url, a.status, status, a.body)
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
	for line := range strings.Lines(a.body) {
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
