// Package healthcheck tells load balancers and the kubelet how the proxy does: /healthz and
// /livez for the node, and one port per Service that asks for it (HealthCheckNodePort). It knows
// snapshots and nothing of modes or Kubernetes.
package healthcheck
