package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-proxy/sluice/proxy"
)

// iptablesMetrics are those of mode iptables.
type iptablesMetrics struct {
	rules, written        *prometheus.GaugeVec
	failed, failedPartial *prometheus.CounterVec
	bytes                 *prometheus.CounterVec
}

func newIPTables(f factory, cfg Config) *iptablesMetrics {
	const table = "table"
	m := &iptablesMetrics{
		rules: f.gauge("kubeproxy_sync_proxy_rules_iptables_total",
			"Rules of ours in a table.", table, familyLabel),
		written: f.gauge("kubeproxy_sync_proxy_rules_iptables_last",
			"Rules that were written the last time.", table, familyLabel),
		failed: f.counter("kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
			"Calls of iptables-restore that failed.", familyLabel),
		failedPartial: f.counter("kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
			"Calls of iptables-restore that failed to write a difference.", familyLabel),
		bytes: f.counter("sluice_iptables_restore_bytes_total",
			"Bytes that were given to iptables-restore.", familyLabel),
	}
	f.packets("kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
		"Packets that were dropped because conntrack finds them invalid.", cfg.InvalidDropped)
	f.packets("kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
		"Packets to a NodePort on a loopback address.", cfg.LocalhostAccepted)
	return m
}

func (m *iptablesMetrics) applied(family string, tables []proxy.TableCount) {
	for _, t := range tables {
		m.rules.WithLabelValues(t.Table, family).Set(float64(t.Objects))
		m.written.WithLabelValues(t.Table, family).Set(float64(t.Writes))
	}
}

// RestoreFailed counts a call of iptables-restore that failed; partial says that it was to write a
// difference. Other modes ignore it.
func (m *Metrics) RestoreFailed(f proxy.Family, partial bool) {
	if m.iptables == nil {
		return
	}
	m.iptables.failed.WithLabelValues(f.String()).Inc()
	if partial {
		m.iptables.failedPartial.WithLabelValues(f.String()).Inc()
	}
}

// RestoreBytes counts what was given to iptables-restore. Other modes ignore it.
func (m *Metrics) RestoreBytes(f proxy.Family, n int) {
	if m.iptables != nil {
		m.iptables.bytes.WithLabelValues(f.String()).Add(float64(n))
	}
}

// packets registers a counter that the kernel keeps, if there is one.
func (f factory) packets(name, help string, read func() (uint64, bool)) {
	if read != nil {
		f.registry.MustRegister(&packetCounter{prometheus.NewDesc(name, help, nil, nil), read})
	}
}

// packetCounter reads the kernel whenever metrics are read.
type packetCounter struct {
	desc *prometheus.Desc
	read func() (uint64, bool)
}

// Describe implements prometheus.Collector.
func (c *packetCounter) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *packetCounter) Collect(ch chan<- prometheus.Metric) {
	if n, ok := c.read(); ok {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(n))
	}
}
