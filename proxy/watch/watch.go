// Package watch tells a tracker of the Services and EndpointSlices of a cluster, and others of this node's
// Node object and of the ServiceCIDRs. It decides nothing: it asks the API server for no more than a
// service proxy serves, keeps no more of an object than somebody reads, and passes it on.
package watch

import (
	"context"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

// cidrPatience is how long a start waits for the ServiceCIDRs, when all that is to be served is known. Much is written anew
// if they come later.
const cidrPatience = 5 * time.Second

// annotationScheduler names a scheduler of IPVS for a Service.
const annotationScheduler = "ipvs.sluice-proxy.io/scheduler"

// labelServiceProxyName gives a Service to another proxy.
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// Sink is told of Services and EndpointSlices, from several goroutines. It must not change what it is given.
type Sink interface {
	SetService(*corev1.Service)
	DeleteService(proxy.ServiceName)
	SetEndpointSlice(*discoveryv1.EndpointSlice)
	DeleteEndpointSlice(namespace, name string)
}

// Config is what a Watcher needs. All fields are required.
type Config struct {
	Client kubernetes.Interface
	Sink   Sink

	// NodeName is the Node whose every new state SetNode is told. Its deletion is not told: a node
	// that still runs keeps its facts.
	NodeName string
	SetNode  func(*corev1.Node)

	// SetServiceCIDRs is told the ranges of each ServiceCIDR object, none when it is deleted. It is not
	// called in a cluster that has no such objects or does not let us read them.
	SetServiceCIDRs func(name string, cidrs []netip.Prefix)

	// ResyncPeriod is how often everything that is known is passed on again.
	ResyncPeriod time.Duration
}

// Watcher watches a cluster.
type Watcher struct {
	cfg    Config
	synced chan struct{}

	services, slices, node, cidrs *source
}

// New makes a Watcher that does not watch yet.
func New(cfg Config) *Watcher {
	w := &Watcher{cfg: cfg, synced: make(chan struct{})}
	w.services, w.slices, w.node, w.cidrs = w.watchServices(), w.watchEndpointSlices(), w.watchNode(), w.watchServiceCIDRs()
	return w
}

// sources are all that is watched.
func (w *Watcher) sources() []*source { return []*source{w.services, w.slices, w.node, w.cidrs} }

// Synced is closed when the sink has been told of every Service and every EndpointSlice, SetNode of the Node if there is
// one, and SetServiceCIDRs of every ServiceCIDR unless that takes long or the cluster has none.
func (w *Watcher) Synced() <-chan struct{} { return w.synced }

// NodeListed is closed when the API server has told of the Node for the first time, or that there is none.
func (w *Watcher) NodeListed() <-chan struct{} { return w.node.store.Listed() }

// ServiceUID is what tells a Service from others that had or will have its name; empty if there is no such Service. A Sink must
// not ask for it while it is told of Services.
func (w *Watcher) ServiceUID(name proxy.ServiceName) types.UID {
	return w.services.store.UID(name.String())
}

// Run watches until ctx ends and returns when nothing is told any more. It may be called once.
func (w *Watcher) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for _, s := range w.sources() {
		running.Go(func() { s.run(ctx) })
	}
	for _, s := range []*source{w.services, w.slices, w.node} {
		select {
		case <-s.store.Listed():
		case <-ctx.Done():
			return
		}
	}
	select {
	case <-w.cidrs.store.Listed():
	case <-w.cidrs.absent:
	case <-time.After(cidrPatience):
		// They must not keep Services from being served.
	case <-ctx.Done():
		return
	}
	klog.FromContext(ctx).V(1).Info("All Services, EndpointSlices and the Node are known")
	close(w.synced)
	<-ctx.Done()
}

// watchServices is about those that a cluster has not given to another proxy and that have, or may get, an
// address to serve.
func (w *Watcher) watchServices() *source {
	api := listerWatcher(w.cfg.Client, w.cfg.Client.CoreV1().Services(metav1.NamespaceAll), func(o *metav1.ListOptions) {
		o.LabelSelector = "!" + labelServiceProxyName
		o.FieldSelector = "spec.clusterIP!=" + corev1.ClusterIPNone
	})
	return w.source("services", api, newStore(trimService, w.cfg.Sink.SetService, func(s *corev1.Service) {
		w.cfg.Sink.DeleteService(proxy.ServiceName{Namespace: s.Namespace, Name: s.Name})
	}))
}

func (w *Watcher) watchEndpointSlices() *source {
	api := listerWatcher(w.cfg.Client, w.cfg.Client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll),
		func(o *metav1.ListOptions) { o.LabelSelector = "!" + corev1.IsHeadlessService })
	return w.source("endpointslices", api, newStore(trimEndpointSlice, w.cfg.Sink.SetEndpointSlice, func(s *discoveryv1.EndpointSlice) {
		w.cfg.Sink.DeleteEndpointSlice(s.Namespace, s.Name)
	}))
}

func (w *Watcher) watchNode() *source {
	api := listerWatcher(w.cfg.Client, w.cfg.Client.CoreV1().Nodes(), func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, w.cfg.NodeName).String()
	})
	return w.source("nodes", api, newStore(trimNode, w.cfg.SetNode, func(*corev1.Node) {}))
}

// watchServiceCIDRs is about what can be done without.
func (w *Watcher) watchServiceCIDRs() *source {
	api := listerWatcher(w.cfg.Client, w.cfg.Client.NetworkingV1().ServiceCIDRs(), func(*metav1.ListOptions) {})
	s := w.source("servicecidrs", api, newStore(trimServiceCIDR,
		func(c *networkingv1.ServiceCIDR) { w.cfg.SetServiceCIDRs(c.Name, parsePrefixes(c.Spec.CIDRs)) },
		func(c *networkingv1.ServiceCIDR) { w.cfg.SetServiceCIDRs(c.Name, nil) }))
	s.optional = true
	return s
}

// parsePrefixes leaves out what is not a CIDR.
func parsePrefixes(texts []string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			prefixes = append(prefixes, p.Masked())
		}
	}
	return prefixes
}
