package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-proxy/sluice/proxy"
)

// iptablesMetrics are those of mode iptables.
type iptablesMetrics struct {
	rules, written        *prometheus.GaugeVec
	failed, failedPartial *prometheus.CounterVec
}

func newIPTables(f factory) *iptablesMetrics {
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
	}
	return m
}

func (m *iptablesMetrics) applied(family string, tables []proxy.TableCount) {
	for _, t := range tables {
		m.rules.WithLabelValues(t.Table, family).Set(float64(t.Objects))
		m.written.WithLabelValues(t.Table, family).Set(float64(t.Writes))
	}
}

// restored counts the calls of iptables-restore of one attempt. Until the first they are 0, not absent, so
// that an alert on their growth sees it.
func (m *iptablesMetrics) restored(family string, r proxy.Report) {
	m.failed.WithLabelValues(family).Add(float64(r.Refusals))
	partial := m.failedPartial.WithLabelValues(family)
	if !r.Full {
		partial.Add(float64(r.Refusals))
	}
}
