// Package relay serves TCP NodePorts on the loopback address from user space, for families and modes in which the kernel does
// not translate loopback addresses. It follows snapshots that have been applied. It knows no mode and no Kubernetes object.
package relay
