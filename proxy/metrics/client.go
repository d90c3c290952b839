package metrics

import (
	"context"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientmetrics "k8s.io/client-go/tools/metrics"
)

// Client counts what client-go does, under the names that all of Kubernetes has for it.
//
// Sizes of requests and answers, and waits of the rate limiter, are left out: a proxy asks a few times and then
// watches, and they would take a quarter of the series that a node may have.
type Client struct{ collectors []prometheus.Collector }

// WatchClient counts from now on. client-go knows one receiver in a process: only the first one counts.
func WatchClient() *Client {
	c := &Client{}
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "rest_client_request_duration_seconds", Help: "Time of each request to the API server.",
		Buckets: []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60},
	}, []string{"verb", "host"})
	entries := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "rest_client_transport_cache_entries", Help: "Transports that are kept for further clients.",
	})
	c.collectors = append(c.collectors, latency, entries)
	clientmetrics.Register(clientmetrics.RegisterOpts{
		RequestLatency: requestLatency{latency},
		RequestResult: requestResult{c.counter("rest_client_requests_total",
			"Requests to the API server, by code, method and host.", "code", "method", "host")},
		RequestRetry: requestRetry{c.counter("rest_client_request_retries_total",
			"Requests that were made again, by code, verb and host.", "code", "verb", "host")},
		TransportCacheEntries: transportEntries{entries},
		TransportCreateCalls: transportCalls{c.counter("rest_client_transport_create_calls_total",
			"Calls for a transport, by what came of it.", "result")},
		TransportCAReloads: reloads{c.counter("rest_client_transport_ca_reload_total",
			"Attempts to read the certificates of the API server again.", "result", "reason")},
	})
	return c
}

func (c *Client) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	c.collectors = append(c.collectors, v)
	return v
}

// Describe implements prometheus.Collector.
func (c *Client) Describe(to chan<- *prometheus.Desc) {
	for _, each := range c.collectors {
		each.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (c *Client) Collect(to chan<- prometheus.Metric) {
	for _, each := range c.collectors {
		each.Collect(to)
	}
}

type requestLatency struct{ *prometheus.HistogramVec }

// Observe implements client-go's LatencyMetric.
func (m requestLatency) Observe(_ context.Context, verb string, u url.URL, took time.Duration) {
	m.WithLabelValues(verb, u.Host).Observe(took.Seconds())
}

type requestResult struct{ *prometheus.CounterVec }

// Increment implements client-go's ResultMetric.
func (m requestResult) Increment(_ context.Context, code, method, host string) {
	m.WithLabelValues(code, method, host).Inc()
}

type requestRetry struct{ *prometheus.CounterVec }

// IncrementRetry implements client-go's RetryMetric.
func (m requestRetry) IncrementRetry(_ context.Context, code, verb, host string) {
	m.WithLabelValues(code, verb, host).Inc()
}

type transportEntries struct{ prometheus.Gauge }

// Observe implements client-go's TransportCacheMetric.
func (m transportEntries) Observe(n int) { m.Set(float64(n)) }

type transportCalls struct{ *prometheus.CounterVec }

// Increment implements client-go's TransportCreateCallsMetric.
func (m transportCalls) Increment(result string) { m.WithLabelValues(result).Inc() }

type reloads struct{ *prometheus.CounterVec }

// Increment implements client-go's TransportCAReloadsMetric.
func (m reloads) Increment(result, reason string) { m.WithLabelValues(result, reason).Inc() }
