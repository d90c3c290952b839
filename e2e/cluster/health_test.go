package cluster

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

func healthFollowsTheNode(s *story) {
	a, err := get(s.Client, healthzURL)
	if err != nil {
		s.Fatal(err)
	}
	var health struct {
		LastUpdated, CurrentTime string
		NodeEligible, Healthy    *bool
		Status                   map[string]struct{ Healthy bool }
	}
	if err := json.Unmarshal([]byte(a.Body), &health); err != nil {
		s.Fatalf("body %q: %v", a.Body, err)
	}
	if a.Status != 200 || health.Healthy == nil || !*health.Healthy || health.NodeEligible == nil || !*health.NodeEligible {
		s.Errorf("healthz is %d: %s", a.Status, a.Body)
	}
	for _, f := range proxy.Families {
		if !health.Status[f.String()].Healthy {
			s.Errorf("family %v is not healthy: %s", f, a.Body)
		}
	}

	// The autoscaler is about to remove the node: load balancers must leave, the process is well.
	taint := corev1.Taint{Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule}
	s.editNode(func(node *corev1.Node) { node.Spec.Taints = append(node.Spec.Taints, taint) })
	eventually(s.T, "a tainted node is not healthy", func() error { return s.wantStatus(healthzURL, 503) })
	if err := s.wantStatus(livezURL, 200); err != nil {
		s.Error(err)
	}
	s.editNode(func(node *corev1.Node) { node.Spec.Taints = nil })
	eventually(s.T, "the node is healthy again", func() error { return s.wantStatus(healthzURL, 200) })
}

func healthCheckNodePortCountsLocalEndpoints(s *story) {
	svc := s.service("web", loadBalancer, externalLocal)
	wants := func(status, local int) {
		s.Helper()
		families(func(f proxy.Family) {
			url := fmt.Sprintf("http://%v/", tcp(lab.In(f, lab.NodeIP), svc.Spec.HealthCheckNodePort).AddrPort)
			eventually(s.T, fmt.Sprintf("%s says %d endpoints", url, local), func() error {
				a, err := get(s.Client, url)
				if err != nil {
					return err
				}
				var body struct {
					Service        struct{ Namespace, Name string }
					LocalEndpoints int
				}
				if err := json.Unmarshal([]byte(a.Body), &body); err != nil {
					return err
				}
				weight := a.Header.Get("X-Load-Balancing-Endpoint-Weight")
				if a.Status != status || weight != fmt.Sprint(local) || body.LocalEndpoints != local || body.Service.Name != "web" {
					return fmt.Errorf("%d, weight %q, %s", a.Status, weight, a.Body)
				}
				return nil
			})
		})
	}
	wants(503, 0)
	s.endpoints(svc, ready(s.local(), s.remote())...)
	wants(200, 1)
	s.endpoints(svc, ready(s.local(), s.otherLocal(), s.remote())...)
	wants(200, 2)
	s.endpoints(svc, endpoint{host: s.local(), terminating: true}, endpoint{host: s.remote()})
	wants(503, 0) // although it still gets traffic
}

// eventsSayWhatHappened: the node's start, and a Service that another stands in the way of. They are found as kubectl describe
// looks for them: by the UID of the object, too.
func eventsSayWhatHappened(s *story) {
	const external = "203.0.113.62"
	var second *corev1.Service
	for _, name := range []string{"first", "second"} {
		second = s.service(name, externalIP(external))
		s.endpoints(second, ready(s.local())...)
	}
	for _, want := range []struct {
		reason    string
		regarding corev1.ObjectReference
	}{
		// The UID of a Node is its name there.
		{"Starting", corev1.ObjectReference{Kind: "Node", Name: nodeName, UID: nodeName}},
		{"AddressConflict", corev1.ObjectReference{Kind: "Service", Namespace: second.Namespace, Name: second.Name, UID: second.UID}},
	} {
		eventually(s.T, fmt.Sprintf("event %+v", want), func() error {
			events, err := s.api.CoreV1().Events(metav1.NamespaceAll).SearchWithContext(s.Context(), scheme.Scheme, &want.regarding)
			if err != nil {
				return err
			}
			var seen []string
			for _, e := range events.Items {
				if e.Reason == want.reason {
					return nil
				}
				seen = append(seen, e.Reason)
			}
			return fmt.Errorf("saw %q", seen)
		})
	}
}

func metricsSayWhatHappened(s *story) {
	if a, err := get(s.Node, modeURL); err != nil || a.Body != s.mode.Mode {
		s.Errorf("proxyMode: %q, %v", a.Body, err)
	}
	svc := s.service("web", loadBalancer, externalLocal)
	s.endpoints(svc, ready(s.remote())...)
	families(func(f proxy.Family) { s.reaches(s.visitor(), nodePort(svc, f), s.remote()) })
	a, err := get(s.Node, metricsURL)
	if err != nil {
		s.Fatal(err)
	}
	for _, name := range append([]string{
		"kubeproxy_sync_proxy_rules_duration_seconds_bucket",
		"kubeproxy_sync_proxy_rules_last_timestamp_seconds",
		"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
		"kubeproxy_sync_proxy_rules_service_changes_total",
		"kubeproxy_proxy_healthz_total",
		"go_goroutines",
		"process_cpu_seconds_total",
	}, s.kernel.metrics...) {
		if !strings.Contains(a.Body, "\n"+name) {
			s.Errorf("/metrics lacks %s", name)
		}
	}
	families(func(f proxy.Family) {
		for _, table := range []string{"nat", "filter"} {
			if s.kernel.table != "" {
				break
			}
			series := fmt.Sprintf(`kubeproxy_sync_proxy_rules_iptables_total{ip_family="%v",table="%s"}`, f, table)
			if s.metric(s.T, series) <= 0 {
				s.Errorf("%s is not positive", series)
			}
		}
		series := fmt.Sprintf(`kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="%v",traffic_policy="external"}`, f)
		eventually(s.T, series, func() error {
			if n := s.metric(s.T, series); n != 1 {
				return fmt.Errorf("%v, want 1", n)
			}
			return nil
		})
	})
}
