package metrics

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	clientmetrics "k8s.io/client-go/tools/metrics"

	"github.com/sluice-proxy/sluice/proxy"
)

// A node with both families, on which everything has happened that can, has no more series than it may have.
func TestSeriesOfABusyNodeAreBounded(t *testing.T) {
	client := WatchClient()
	for _, mode := range []string{"iptables", "nftables", "ipvs"} {
		m := New(Config{
			Client: map[string]*Client{"iptables": client}[mode],
			Mode:   mode, Changes: noChanges, Features: []Feature{{"A", "GA", true}, {"B", "alpha", false}, {"C", "beta", true}, {"D", "beta", true}},
			Silence: func() map[string]time.Duration {
				return map[string]time.Duration{"services": time.Second, "endpointslices": time.Minute, "nodes": 3 * time.Second, "servicecidrs": 4}
			},
		})
		if mode == "iptables" {
			useClient(t)
			expect(t, m, map[string]string{
				`rest_client_requests_total{code="410",host="192.0.2.1:6443",method="GET"}`:       "1",
				`rest_client_request_duration_seconds_count{host="192.0.2.1:6443",verb="PATCH"}`:  "1",
				`rest_client_request_retries_total{code="429",host="192.0.2.1:6443",verb="POST"}`: "1",
				`rest_client_transport_create_calls_total{result="miss"}`:                         "1",
				`rest_client_transport_ca_reload_total{reason="ca_changed",result="success"}`:     "1",
				`rest_client_transport_cache_entries`:                                             "1",
				`sluice_watch_silence_seconds{resource="nodes"}`:                                  "3",
				`kubernetes_feature_enabled{name="B",stage="ALPHA"}`:                              "0",
				`kubernetes_feature_enabled{name="A",stage=""}`:                                   "1",
			})
		}
		for _, f := range proxy.Families {
			report := proxy.Report{Tables: []proxy.TableCount{{Table: "nat"}, {Table: "filter"}}}
			for _, report.Full = range []bool{true, false} {
				m.Queued(f)
				m.Applied(Sync{Family: f, Report: report, Triggers: []time.Time{time.Now().Add(time.Hour)}}, empty(f))
				m.Failed(Sync{Family: f, Report: report})
			}
			m.Conntrack(f, time.Second)
			for _, reason := range []string{"endpoint_gone", "untranslated", "frontend_released", "unassigned_address"} {
				m.FlowsDeleted(f, reason, 1)
			}
			m.Conflicts(f, 1)
			m.Repair(f, Changed)
			m.Repair(f, Unseen)
			m.RelayFailed(f)
		}
		for _, code := range []int{200, 503} {
			m.Healthz(code)
			m.Livez(code)
		}
		n := len(read(t, m))
		t.Logf("%s: %d", mode, n)
		if n > 500 {
			t.Errorf("%s: %d series", mode, n)
		}
	}
}

// useClient counts what a proxy does in a bad year.
func useClient(t *testing.T) {
	t.Helper()
	u := url.URL{Host: "192.0.2.1:6443"}
	for _, verb := range []string{"GET", "POST", "PATCH"} {
		clientmetrics.RequestLatency.Observe(t.Context(), verb, u, time.Second)
		for _, code := range []int{200, 410, 429, 500} {
			clientmetrics.RequestResult.Increment(t.Context(), fmt.Sprint(code), verb, u.Host)
		}
		clientmetrics.RequestRetry.IncrementRetry(t.Context(), "429", verb, u.Host)
	}
	clientmetrics.TransportCacheEntries.Observe(1)
	clientmetrics.TransportCreateCalls.Increment("miss")
	clientmetrics.TransportCAReloads.Increment("success", "ca_changed")
}
