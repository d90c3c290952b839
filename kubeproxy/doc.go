// Package kubeproxy finds and removes what kube-proxy has left in the kernel, in each of its modes. What belongs to kubelet, to
// Sluice or to anybody else stays. It knows no Service.
package kubeproxy
