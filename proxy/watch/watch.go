// Package watch tells a tracker of the Services and EndpointSlices of a cluster, and others of this node's
// Node object and of the ServiceCIDRs. It decides nothing: it asks the API server for no more than a
// service proxy serves, keeps no more of an object than somebody reads, and passes it on.
package watch

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

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
}

// New makes a Watcher that does not watch yet.
func New(cfg Config) *Watcher {
	return &Watcher{cfg: cfg, synced: make(chan struct{})}
}

// Synced is closed when the sink has been told of every Service and every EndpointSlice.
func (w *Watcher) Synced() <-chan struct{} { return w.synced }

// Run watches until ctx ends and returns when nothing is told any more. It may be called once.
func (w *Watcher) Run(ctx context.Context) {
	var informers sync.WaitGroup
	defer informers.Wait()
	services := w.services()
	slices := w.endpointSlices()
	for _, s := range []*source{services, slices, w.node(), w.serviceCIDRs()} {
		informers.Go(func() { s.run(ctx) })
	}
	if cache.WaitFor(ctx, "", services.delivered, slices.delivered) {
		klog.FromContext(ctx).V(1).Info("All Services and EndpointSlices are known")
		close(w.synced)
	}
	<-ctx.Done()
}

// services are those that a cluster has not given to another proxy and that have, or may get, an
// address to serve.
func (w *Watcher) services() *source {
	informer := coreinformers.NewFilteredServiceInformer(w.cfg.Client, metav1.NamespaceAll, w.cfg.ResyncPeriod, cache.Indexers{},
		func(o *metav1.ListOptions) {
			o.LabelSelector = "!" + labelServiceProxyName
			o.FieldSelector = "spec.clusterIP!=" + corev1.ClusterIPNone
		})
	return newSource("services", informer, trimService, w.cfg.Sink.SetService, func(s *corev1.Service) {
		w.cfg.Sink.DeleteService(proxy.ServiceName{Namespace: s.Namespace, Name: s.Name})
	})
}

func (w *Watcher) endpointSlices() *source {
	informer := discoveryinformers.NewFilteredEndpointSliceInformer(w.cfg.Client, metav1.NamespaceAll, w.cfg.ResyncPeriod, cache.Indexers{},
		func(o *metav1.ListOptions) { o.LabelSelector = "!" + corev1.IsHeadlessService })
	return newSource("endpointslices", informer, trimEndpointSlice, w.cfg.Sink.SetEndpointSlice, func(s *discoveryv1.EndpointSlice) {
		w.cfg.Sink.DeleteEndpointSlice(s.Namespace, s.Name)
	})
}

func (w *Watcher) node() *source {
	informer := coreinformers.NewFilteredNodeInformer(w.cfg.Client, w.cfg.ResyncPeriod, cache.Indexers{},
		func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, w.cfg.NodeName).String()
		})
	return newSource("nodes", informer, trimNode, w.cfg.SetNode, func(*corev1.Node) {})
}

// serviceCIDRs can be done without.
func (w *Watcher) serviceCIDRs() *source {
	informer := networkinginformers.NewServiceCIDRInformer(w.cfg.Client, w.cfg.ResyncPeriod, cache.Indexers{})
	s := newSource("servicecidrs", informer, trimServiceCIDR,
		func(c *networkingv1.ServiceCIDR) { w.cfg.SetServiceCIDRs(c.Name, parsePrefixes(c.Spec.CIDRs)) },
		func(c *networkingv1.ServiceCIDR) { w.cfg.SetServiceCIDRs(c.Name, nil) })
	s.optional = true
	return s
}

// source passes on the objects of one resource.
type source struct {
	resource  string
	informer  cache.SharedIndexInformer
	delivered cache.DoneChecker
	optional  bool // the cluster may lack the resource or refuse it
	lacking   bool // it does, and that is logged; for the informer's goroutine alone
}

// lackedFor is how long a resource that the cluster lacks is not asked for again. It may come with an upgrade of
// the API server, and one that starts refuses for a moment what it allows otherwise.
const lackedFor = 10 * time.Minute

// newSource makes a source that has not started. It panics on what only a programmer can do wrong.
func newSource[T any](resource string, informer cache.SharedIndexInformer, trim func(*T), set, remove func(*T)) *source {
	s := &source{resource: resource, informer: informer}
	err := informer.SetTransform(func(object any) (any, error) {
		if o, ok := object.(*T); ok {
			trim(o)
		}
		return object, nil
	})
	if err != nil {
		panic(err)
	}
	if err := informer.SetWatchErrorHandlerWithContext(s.failed); err != nil {
		panic(err)
	}
	registration, err := informer.AddEventHandler(handler[T]{set: set, remove: remove})
	if err != nil {
		panic(err)
	}
	s.delivered = registration.HasSyncedChecker()
	return s
}

func (s *source) run(ctx context.Context) { s.informer.RunWithContext(ctx) }

// failed logs why a list or watch ended; the informer tries again when it returns, with backoff. What was last
// known stays in force meanwhile.
func (s *source) failed(ctx context.Context, _ *cache.Reflector, err error) {
	log := klog.FromContext(ctx)
	switch {
	case s.optional && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err)):
		if !s.lacking {
			log.Info("Doing without a resource of the API server", "resource", s.resource, "reason", err.Error(), "retryEvery", lackedFor)
		}
		s.lacking = true
		select {
		case <-ctx.Done():
		case <-time.After(lackedFor):
		}
	case errors.Is(err, io.EOF), apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		log.V(4).Info("Watch ended, starting anew", "resource", s.resource, "reason", err.Error())
	default:
		log.Error(err, "Not watching the API server, what was last known stays in force", "resource", s.resource)
	}
}

// handler passes on events of objects of one type.
type handler[T any] struct{ set, remove func(*T) }

func (h handler[T]) OnAdd(object any, _ bool) {
	if o, ok := object.(*T); ok {
		h.set(o)
	}
}

func (h handler[T]) OnUpdate(_, object any) { h.OnAdd(object, false) }

// OnDelete also takes the last known state of an object whose deletion the watch has missed.
func (h handler[T]) OnDelete(object any) {
	if missed, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = missed.Obj
	}
	if o, ok := object.(*T); ok {
		h.remove(o)
	}
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
