package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-proxy/sluice/proxy"
)

// clients reads, whenever metrics are read, how many clients session affinity remembers.
type clients struct {
	n, limit *prometheus.Desc
	read     map[proxy.Family]func() (n, limit int, err error)
}

// Clients adds the metrics of modes that keep the clients of session affinity in one place, which may become full, by family.
// A family whose clients cannot be counted is absent.
func (m *Metrics) Clients(read map[proxy.Family]func() (n, limit int, err error)) {
	if len(read) == 0 {
		return
	}
	labels := []string{familyLabel}
	m.registry.MustRegister(&clients{
		n: prometheus.NewDesc("sluice_affinity_clients",
			"Clients that session affinity remembers, with each Service that they use. It may be five minutes old.", labels, nil),
		limit: prometheus.NewDesc("sluice_affinity_clients_limit",
			"Clients that session affinity can remember. Further ones are served, but not always by the same backend.", labels, nil),
		read: read,
	})
}

// Describe implements prometheus.Collector.
func (c *clients) Describe(to chan<- *prometheus.Desc) { to <- c.n; to <- c.limit }

// Collect implements prometheus.Collector.
func (c *clients) Collect(to chan<- prometheus.Metric) {
	for f, read := range c.read {
		n, limit, err := read()
		if err != nil {
			continue
		}
		to <- prometheus.MustNewConstMetric(c.n, prometheus.GaugeValue, float64(n), f.String())
		to <- prometheus.MustNewConstMetric(c.limit, prometheus.GaugeValue, float64(limit), f.String())
	}
}
