package metrics

import "github.com/prometheus/client_golang/prometheus"

// packets reads, whenever metrics are read, what rules of mode iptables have counted.
type packets map[*prometheus.Desc]func() (uint64, error)

// Packets adds the metrics that kube-proxy has where the kernel counts packets in accounting objects. What cannot be read is absent.
func (m *Metrics) Packets(invalidDropped, localhostNodePorts func() (uint64, error)) {
	m.registry.MustRegister(packets{
		prometheus.NewDesc("kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
			"Forwarded packets that were dropped because connection tracking cannot place them.", nil, nil): invalidDropped,
		prometheus.NewDesc("kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
			"Connections to NodePorts of loopback addresses that were accepted.", nil, nil): localhostNodePorts,
	})
}

// Describe implements prometheus.Collector.
func (p packets) Describe(to chan<- *prometheus.Desc) {
	for desc := range p {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (p packets) Collect(to chan<- prometheus.Metric) {
	for desc, read := range p {
		if n, err := read(); err == nil {
			to <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n))
		}
	}
}
