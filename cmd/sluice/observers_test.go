package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/loop"
	"github.com/sluice-proxy/sluice/proxy/metrics"
)

// Nothing may change for hours after a pass that failed.
func TestFlowsAreCleanedAgainAfterAFailure(t *testing.T) {
	for name, failure := range map[string]error{"error": errors.New("no memory"), "interrupted": conntrack.ErrInterrupted} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mended atomic.Bool
				table := &conntrack.Fake{Fail: func(string) error {
					if mended.Load() {
						return nil
					}
					return failure
				}}
				client, vip, gone := netip.MustParseAddrPort("10.1.0.9:4000"), netip.MustParseAddrPort("10.96.0.10:53"), netip.MustParseAddrPort("10.1.0.5:53")
				stale := conntrack.Flow{
					Original: conntrack.Tuple{Src: client, Dst: vip},
					Reply:    conntrack.Tuple{Src: gone, Dst: client},
				}
				table.Add(stale, stale)
				o := flowsObserver{
					cleaner: conntrack.NewCleaner(table),
					metrics: metrics.New(metrics.Config{Mode: "iptables"}),
					turns:   new([len(proxy.Families)]turn),
				}
				sp := &proxy.ServicePort{
					Name:      proxy.ServicePortName{Namespace: "ns", Name: "dns", Protocol: proxy.UDP},
					Frontends: []proxy.Frontend{{Kind: proxy.ClusterIP, Addr: vip}},
				}
				snap := proxy.NewSnapshot(&proxy.Node{Family: proxy.IPv4}, map[proxy.ServicePortName]*proxy.ServicePort{sp.Name: sp})
				o.Applied(t.Context(), loop.Applied{Family: proxy.IPv4, New: snap})
				o.Applied(t.Context(), loop.Applied{Family: proxy.IPv4, Old: snap, New: snap})
				<-time.After(2*flowsRetry + time.Second)
				mended.Store(true)
				<-time.After(flowsRetry)
				if left := table.All(); len(left) > 0 {
					t.Errorf("still there: %v", left)
				}
				passes := table.Listings()
				<-time.After(time.Hour)
				if more := table.Listings() - passes; more > 0 {
					t.Errorf("%d passes with nothing to do", more)
				}
			})
		})
	}
}

// A fight is one series of a metric, whatever the other program does.
func TestDoubtsAreCountedByFewReasons(t *testing.T) {
	m := metrics.New(metrics.Config{Mode: "iptables", Changes: func() metrics.Changes { return metrics.Changes{} }})
	o := metricsObserver{metrics: m}
	for _, chain := range []string{"SLUICE-SERVICES", "SLUICE-REFUSE", "SLUICE-FORWARD"} {
		o.Doubted(proxy.IPv4, "iptables (pid 7) deleted a rule in chain "+chain+" of table nat")
	}
	o.Doubted(proxy.IPv4, loop.Unseen)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	var got []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "sluice_repairs_total{") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{`sluice_repairs_total{ip_family="IPv4",reason="changed"} 3`, `sluice_repairs_total{ip_family="IPv4",reason="unseen"} 1`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
