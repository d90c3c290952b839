// Package nodeinfo gathers the facts of this node (its Node object, the addresses of its
// interfaces, the ServiceCIDRs, the configuration) into one immutable proxy.Node per IP family. A fact that
// changes gives a new one; a fact that stays the same keeps the pointer.
//
// It is one of the packages that may ask the kernel. It asks in the network namespace of the calling
// thread.
package nodeinfo
