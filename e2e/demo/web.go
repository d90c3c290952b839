package main

import (
	"fmt"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// web is the Service of the demo and its endpoints.
type web struct {
	backends []*lab.Host
	affinity bool
}

// yaml is the file that a user would write.
func (w web) yaml() string {
	affinity := ""
	if w.affinity {
		affinity = "  sessionAffinity: ClientIP\n"
	}
	var endpoints strings.Builder
	for _, pod := range w.backends {
		fmt.Fprintf(&endpoints, "- {addresses: [%v], nodeName: node}\n", pod.Addr(proxy.IPv4))
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  type: NodePort
  clusterIP: %v
%s  ports:
  - {name: http, port: %d, nodePort: %d}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
ports:
- {name: http, port: %d}
endpoints:
%s`, clusterIP, affinity, servicePort, nodePort, podPort, endpoints.String())
}
