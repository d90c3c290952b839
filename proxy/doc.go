// Package proxy holds the nouns of a service proxy: ServicePorts with their frontends and
// backends, the facts of a node, immutable snapshots of both, and the contract that a mode
// fulfils. It is a leaf: it imports the standard library only and knows nothing of Kubernetes,
// of rule syntax or of the kernel.
//
// Policy is data here. Whoever reads a Frontend does not ask which traffic policy its Service
// has; its table of Routes says what becomes of a packet from each class of source.
package proxy
