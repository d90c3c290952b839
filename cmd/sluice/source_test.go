package main

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/healthcheck"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
	"github.com/sluice-proxy/sluice/proxy/track"
)

// A start while the API server is away waits for it, however long that takes and in whatever order its lists come then, and
// knows the node when it applies something: rules that an earlier start left depend on that.
func TestClusterSourceWaitsForTheNodeUntilTheAPIServerIsBack(t *testing.T) {
	for _, away := range []time.Duration{40 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			client := fake.NewClientset(&corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "z"}},
				Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.1.0.0/16"}},
				Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}},
			})
			var allAway, nodesAway atomic.Bool
			allAway.Store(true)
			nodesAway.Store(true)
			client.PrependReactor("list", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
				return allAway.Load() || nodesAway.Load() && a.GetResource().Resource == "nodes", nil, errors.New("connection refused")
			})
			ctx, cancel := context.WithCancel(t.Context())
			cfg := nodeinfo.Config{Name: "n1", Families: proxy.Families[:], PodDetector: nodeinfo.PodDetector{Mode: nodeinfo.NodeCIDR}}
			p := &proxier{cfg: &config.Config{Node: cfg}, tracker: track.New(track.Config{}), node: nodeinfo.New(cfg), health: healthcheck.New(healthcheck.Config{})}
			s := newClusterSource(p, client)
			go s.run(ctx)
			time.AfterFunc(away, func() { allAway.Store(false) })
			time.AfterFunc(away+time.Minute, func() { nodesAway.Store(false) })

			if err := s.ready(ctx); err != nil {
				t.Fatalf("away for %v: %v", away, err)
			}
			<-s.synced
			got := p.node.Node(proxy.IPv4)
			if got.IP != netip.MustParseAddr("192.0.2.1") || got.Zone != "z" || got.PodSource.Prefix != netip.MustParsePrefix("10.1.0.0/16") {
				t.Errorf("away for %v: ready with %+v", away, got)
			}
			cancel()
			<-time.After(time.Hour) // goroutines end
		})
	}
}
