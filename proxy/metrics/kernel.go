package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-proxy/sluice/proxy"
)

// kernelMetrics say what is in the kernel and what it costs to keep it right, in the same words for every mode.
type kernelMetrics struct {
	objects             *prometheus.GaugeVec
	writes              *prometheus.CounterVec
	bytes, transactions *prometheus.CounterVec
}

func newKernel(f factory) kernelMetrics {
	const table = "table"
	return kernelMetrics{
		objects: f.gauge("sluice_kernel_objects",
			"Objects of ours in the kernel (rules, elements, servers), by table or kind.", table, familyLabel),
		writes: f.counter("sluice_kernel_writes_total",
			"Objects that were written to the kernel, by table or kind.", table, familyLabel),
		bytes: f.counter("sluice_written_bytes_total",
			"Bytes that were handed to the programs that write to the kernel.", familyLabel),
		transactions: f.counter("sluice_transactions_total",
			"Transactions that were handed to the kernel, refused ones included.", familyLabel),
	}
}

func (m kernelMetrics) applied(family string, tables []proxy.TableCount) {
	for _, t := range tables {
		m.objects.WithLabelValues(t.Table, family).Set(float64(t.Objects))
		m.writes.WithLabelValues(t.Table, family).Add(float64(t.Writes))
	}
}

func (m kernelMetrics) written(family string, r proxy.Report) {
	m.bytes.WithLabelValues(family).Add(float64(r.Bytes))
	m.transactions.WithLabelValues(family).Add(float64(r.Transactions))
}

// silence collects for how long the API server has been silent about each resource. It sends a bookmark each minute even
// if nothing changes.
type silence func() map[string]time.Duration

var silenceDesc = prometheus.NewDesc("sluice_watch_silence_seconds",
	"Time since the API server last said anything about a resource.", []string{"resource"}, nil)

// Describe implements prometheus.Collector.
func (silence) Describe(to chan<- *prometheus.Desc) { to <- silenceDesc }

// Collect implements prometheus.Collector.
func (s silence) Collect(to chan<- prometheus.Metric) {
	for resource, since := range s() {
		to <- prometheus.MustNewConstMetric(silenceDesc, prometheus.GaugeValue, since.Seconds(), resource)
	}
}
