// Package pods reads clients that are named by their pod.
package pods

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Parse reads pod:NAMESPACE/NAME; it is false for what does not begin like that.
func Parse(from string) (namespace, name string, isPod bool, err error) {
	text, isPod := strings.CutPrefix(from, "pod:")
	if !isPod {
		return "", "", false, nil
	}
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return "", "", true, fmt.Errorf("--from: %q is not pod:NAMESPACE/NAME", from)
	}
	return namespace, name, true, nil
}

// Address is the first address of a pod that fits, the zero Addr if none does.
func Address(pod *corev1.Pod, fits func(netip.Addr) bool) netip.Addr {
	for _, ip := range pod.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil && fits(addr.Unmap()) {
			return addr.Unmap()
		}
	}
	return netip.Addr{}
}
