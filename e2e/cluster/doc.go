// Package cluster tests the real binary in a small cluster: a real API server, a node in a network
// namespace on which Sluice runs as it does in production, and real packets between pods, nodes and
// clients. The suite plays the controllers and the kubelet. It knows nothing of how rules look.
package cluster
