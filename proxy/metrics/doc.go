// Package metrics holds the metrics of the proxy: the names that dashboards for kube-proxy know
// (kubeproxy_…), and a few of our own (sluice_…). Nothing is registered globally, but for what
// client-go tells, and the number of series does not depend on the number of Services.
package metrics
