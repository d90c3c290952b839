package metrics

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// factory makes and registers metrics.
type factory struct{ registry *prometheus.Registry }

func (f factory) histogram(name, help string, buckets []float64) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{familyLabel})
	f.registry.MustRegister(v)
	return v
}

func (f factory) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	f.registry.MustRegister(v)
	return v
}

func (f factory) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	f.registry.MustRegister(v)
	return v
}

// changes makes the metrics of what came from the API server. They have no family: each event
// counts once.
func (f factory) changes(read func() Changes) {
	counter := func(name, help string, value func(Changes) uint64) {
		f.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value(read())) }))
	}
	gauge := func(name, help string, value func(Changes) int) {
		f.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return float64(value(read())) }))
	}
	counter("kubeproxy_sync_proxy_rules_endpoint_changes_total", "Events of EndpointSlices.",
		func(c Changes) uint64 { return c.EndpointSliceEvents })
	counter("kubeproxy_sync_proxy_rules_service_changes_total", "Events of Services.",
		func(c Changes) uint64 { return c.ServiceEvents })
	gauge("kubeproxy_sync_proxy_rules_endpoint_changes_pending", "Changed EndpointSlices that no rule reflects yet.",
		func(c Changes) int { return c.EndpointsPending })
	gauge("kubeproxy_sync_proxy_rules_service_changes_pending", "Changed Services that no rule reflects yet.",
		func(c Changes) int { return c.ServicesPending })
}

func (f factory) build(b Build) {
	f.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kubernetes_build_info",
		Help: "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{
			"major": b.Major, "minor": b.Minor, "git_version": b.GitVersion, "git_commit": b.GitCommit,
			"git_tree_state": b.GitTreeState, "build_date": b.BuildDate,
			"go_version": runtime.Version(), "compiler": runtime.Compiler, "platform": runtime.GOOS + "/" + runtime.GOARCH,
		},
	}, func() float64 { return 1 }))
}

// features says which feature gates are on.
func (f factory) features(list []Feature) {
	enabled := f.gauge("kubernetes_feature_enabled", "1 if a feature gate is on; only those that change what this proxy does.", "name", "stage")
	for _, feature := range list {
		value := 0.0
		if feature.Enabled {
			value = 1
		}
		enabled.WithLabelValues(feature.Name, stages[feature.Stage]).Set(value)
	}
}

// stages are the words that the label stage has for them.
var stages = map[string]string{"alpha": "ALPHA", "beta": "BETA", "GA": "", "deprecated": "DEPRECATED"}
