package watch

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/loop"
	"github.com/sluice-proxy/sluice/proxy/track"
)

// sink remembers what it is told.
type sink struct {
	lock    sync.Mutex
	objects map[string]string // by resource and name, the resource version
	last    runtime.Object
}

func (s *sink) set(name string, object runtime.Object, version string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.objects[name], s.last = version, object
}

func (s *sink) remove(name string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	delete(s.objects, name)
}

func (s *sink) state() map[string]string {
	s.lock.Lock()
	defer s.lock.Unlock()
	return maps.Clone(s.objects)
}

func (s *sink) SetService(o *corev1.Service)        { s.set("service "+o.Name, o, o.ResourceVersion) }
func (s *sink) DeleteService(n proxy.ServiceName)   { s.remove("service " + n.Name) }
func (s *sink) DeleteEndpointSlice(_, name string)  { s.remove("slice " + name) }
func (s *sink) setNode(o *corev1.Node)              { s.set("node "+o.Name, o, o.ResourceVersion) }
func (s *sink) setCIDRs(n string, c []netip.Prefix) { s.set("cidrs "+n, nil, fmt.Sprint(c)) }
func (s *sink) SetEndpointSlice(o *discoveryv1.EndpointSlice) {
	s.set("slice "+o.Name, o, o.ResourceVersion)
}

func meta(name, version string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "ns", Name: name, ResourceVersion: version}
}

func service(name, version string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: meta(name, version),
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"},
			Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
}

func slice(name, version string, addresses ...string) *discoveryv1.EndpointSlice {
	port, portName, tcp := int32(8080), "", corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  meta(name, version),
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &tcp}},
	}
	s.Labels = map[string]string{discoveryv1.LabelServiceName: "a"}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

// start runs a Watcher of client in the bubble of synctest and returns what it tells.
func start(ctx context.Context, t *testing.T, client *fake.Clientset) (*Watcher, *sink) {
	s := &sink{objects: map[string]string{}}
	w := New(Config{Client: client, Sink: s, NodeName: "n1", SetNode: s.setNode, SetServiceCIDRs: s.setCIDRs, ResyncPeriod: time.Hour})
	run(ctx, t, w.Run)
	synctest.Wait()
	return w, s
}

// run ends with the test.
func run(ctx context.Context, t *testing.T, f func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

func isSynced(w *Watcher) bool { return isClosed(w.Synced()) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func want(t *testing.T, s *sink, objects map[string]string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(objects, s.state()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEventsReachTheSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "1"}}
		cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
			Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.7/12", "fd00::/108", "nonsense"}}}
		client := fake.NewClientset(service("a", "1"), slice("a-1", "1"), node, cidr)
		w, s := start(ctx, t, client)
		if !isSynced(w) {
			t.Error("not synced")
		}
		want(t, s, map[string]string{"service a": "1", "slice a-1": "1", "node n1": "1", "cidrs kubernetes": "[10.96.0.0/12 fd00::/108]"})

		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(client.CoreV1().Services("ns").Update(ctx, service("a", "2"), metav1.UpdateOptions{}))
		must(client.CoreV1().Services("ns").Create(ctx, service("b", "3"), metav1.CreateOptions{}))
		must(client.DiscoveryV1().EndpointSlices("ns").Update(ctx, slice("a-1", "4", "10.0.0.1"), metav1.UpdateOptions{}))
		node = node.DeepCopy()
		node.ResourceVersion = "5"
		must(client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}))
		want(t, s, map[string]string{"service a": "2", "service b": "3", "slice a-1": "4", "node n1": "5", "cidrs kubernetes": "[10.96.0.0/12 fd00::/108]"})

		must(nil, client.CoreV1().Services("ns").Delete(ctx, "a", metav1.DeleteOptions{}))
		must(nil, client.DiscoveryV1().EndpointSlices("ns").Delete(ctx, "a-1", metav1.DeleteOptions{}))
		must(nil, client.CoreV1().Nodes().Delete(ctx, "n1", metav1.DeleteOptions{}))
		must(nil, client.NetworkingV1().ServiceCIDRs().Delete(ctx, "kubernetes", metav1.DeleteOptions{}))
		want(t, s, map[string]string{"service b": "3", "node n1": "5", "cidrs kubernetes": "[]"})
	})
}

func TestServicesAreKnownByTheirUID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		web := service("a", "1")
		web.UID = "u1"
		client := fake.NewClientset(web)
		w, _ := start(t.Context(), t, client)
		wantUID := func(want types.UID) {
			t.Helper()
			synctest.Wait()
			if got := w.ServiceUID(proxy.ServiceName{Namespace: "ns", Name: "a"}); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		wantUID("u1")
		if err := client.CoreV1().Services("ns").Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		wantUID("")
		again := service("a", "2")
		again.UID = "u2"
		if _, err := client.CoreV1().Services("ns").Create(t.Context(), again, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		wantUID("u2")
	})
}

func TestOnlyWhatIsServedIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		start(t.Context(), t, client)
		got := map[string]string{}
		for _, a := range client.Actions() {
			l, ok := a.(clienttesting.ListActionImpl)
			if ok {
				got[a.GetResource().Resource] = l.ListOptions.LabelSelector + " " + l.ListOptions.FieldSelector
			}
			if w, ok := a.(clienttesting.WatchActionImpl); ok {
				selectors := w.ListOptions.LabelSelector + " " + w.ListOptions.FieldSelector
				if listed := got[a.GetResource().Resource]; selectors != listed {
					t.Errorf("%s: watches %q, lists %q", a.GetResource().Resource, selectors, listed)
				}
			}
		}
		want := map[string]string{
			"services":       "!service.kubernetes.io/service-proxy-name spec.clusterIP!=None",
			"endpointslices": "!service.kubernetes.io/headless ",
			"nodes":          " metadata.name=n1",
			"servicecidrs":   " ",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("selectors (-want +got):\n%s", diff)
		}
	})
}

// refuse makes a client answer to lists of a resource with an error while on is true.
func refuse(client *fake.Clientset, resource string, on *atomic.Bool, err error) {
	client.PrependReactor("list", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		return on.Load(), nil, err
	})
}

func TestNotSyncedBeforeAllListsAreThere(t *testing.T) {
	for _, resource := range []string{"services", "endpointslices", "nodes"} {
		t.Run(resource, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset(service("a", "1"), slice("a-1", "1"))
				refused := new(atomic.Bool)
				refused.Store(true)
				refuse(client, resource, refused, apierrors.NewServiceUnavailable("not now"))
				w, _ := start(t.Context(), t, client)
				<-time.After(2 * time.Minute)
				synctest.Wait()
				if isSynced(w) {
					t.Error("synced without " + resource)
				}
				if listed := isClosed(w.NodeListed()); listed != (resource != "nodes") {
					t.Errorf("without %s it is %t that the Node is listed", resource, listed)
				}
				refused.Store(false)
				<-time.After(2 * time.Minute)
				synctest.Wait()
				if !isSynced(w) || !isClosed(w.NodeListed()) { // there is no Node, which is an answer too
					t.Error("not synced")
				}
			})
		})
	}
}

func TestServiceCIDRsCanBeDoneWithout(t *testing.T) {
	resource := schema.GroupResource{Group: "networking.k8s.io", Resource: "servicecidrs"}
	for name, err := range map[string]error{
		"absent":    apierrors.NewNotFound(resource, ""),
		"forbidden": apierrors.NewForbidden(resource, "", fmt.Errorf("no")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset(service("a", "1"))
				refused := new(atomic.Bool)
				refused.Store(true)
				refuse(client, resource.Resource, refused, err)
				var lock sync.Mutex
				var lines []string
				log := funcr.New(func(_, args string) {
					lock.Lock()
					defer lock.Unlock()
					if strings.Contains(args, "servicecidrs") {
						lines = append(lines, args)
					}
				}, funcr.Options{})
				w, s := start(klog.NewContext(t.Context(), log), t, client)
				<-time.After(24 * time.Hour)
				want(t, s, map[string]string{"service a": "1"})
				if !isSynced(w) {
					t.Error("not synced")
				}
				lock.Lock()
				if len(lines) != 1 {
					t.Errorf("logged %q, want one line", lines)
				}
				lock.Unlock()

				refused.Store(false)
				cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
					Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/12"}}}
				if _, err := client.NetworkingV1().ServiceCIDRs().Create(t.Context(), cidr, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				<-time.After(time.Hour)
				want(t, s, map[string]string{"service a": "1", "cidrs kubernetes": "[10.96.0.0/12]"})
			})
		})
	}
}

func TestUnreachableAPIServerIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		refused := new(atomic.Bool)
		refused.Store(true)
		refuse(client, "services", refused, fmt.Errorf("connection refused"))
		var lock sync.Mutex
		logged := false
		log := funcr.New(func(_, args string) {
			lock.Lock()
			defer lock.Unlock()
			logged = logged || strings.Contains(args, "connection refused") && strings.Contains(args, `"services"`)
		}, funcr.Options{})
		start(klog.NewContext(t.Context(), log), t, client)
		<-time.After(time.Minute)
		lock.Lock()
		defer lock.Unlock()
		if !logged {
			t.Error("nothing in the log")
		}
	})
}

func TestMissedDeletionsAreHandled(t *testing.T) {
	told := &sink{objects: map[string]string{}}
	st := newStore(trimService, told.SetService, func(s *corev1.Service) {
		told.DeleteService(proxy.ServiceName{Namespace: s.Namespace, Name: s.Name})
	})
	for _, list := range [][]any{{service("a", "1"), service("b", "1"), service("c", "1")}, {service("b", "2"), service("d", "2")}} {
		if err := st.Replace(list, ""); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]string{"service b": "2", "service d": "2"}, told.state()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for range 2 { // a deletion may come again
		if err := st.Delete(service("d", "3")); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]string{"service b": "2"}, told.state()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// outage is an API server that can go away: its watches end, and nobody can connect. When it is back it has
// forgotten what came in between.
type outage struct {
	lock     sync.Mutex
	away     bool
	asked    int // how often somebody tried to connect
	watchers []apiwatch.Interface
	expired  map[string]bool // resources whose next watch it cannot continue
}

func newOutage(client *fake.Clientset) *outage {
	o := &outage{expired: map[string]bool{}}
	refused := fmt.Errorf("dial tcp: %w", syscall.ECONNREFUSED)
	client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		o.lock.Lock()
		defer o.lock.Unlock()
		o.asked++
		return o.away, nil, refused
	})
	client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, apiwatch.Interface, error) {
		o.lock.Lock()
		defer o.lock.Unlock()
		o.asked++
		if o.away {
			o.expired[a.GetResource().Resource] = true
			return true, nil, refused
		}
		if o.expired[a.GetResource().Resource] {
			o.expired[a.GetResource().Resource] = false
			return true, nil, apierrors.NewResourceExpired("too old")
		}
		w, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		o.watchers = append(o.watchers, w)
		return true, w, err
	})
	return o
}

// begin makes it go away, end makes it come back and says how often it was asked for meanwhile.
func (o *outage) begin() {
	o.lock.Lock()
	defer o.lock.Unlock()
	for _, w := range o.watchers {
		w.Stop()
	}
	o.away, o.asked, o.watchers = true, 0, nil
}

func (o *outage) end() (asked int) {
	o.lock.Lock()
	defer o.lock.Unlock()
	o.away = false
	return o.asked
}

// However long the API server was away, nodes learn soon of what changed meanwhile, and do not storm it. Time is
// that of the bubble.
func TestChangesArriveSoonAfterAnOutage(t *testing.T) {
	for _, away := range []time.Duration{5 * time.Second, time.Minute, 3 * time.Hour} {
		t.Run(away.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset(service("a", "1"), slice("a-1", "1"))
				o := newOutage(client)
				_, s := start(t.Context(), t, client)
				time.Sleep(time.Hour)
				o.begin()
				time.Sleep(away)
				if err := client.Tracker().Update(corev1.SchemeGroupVersion.WithResource("services"), service("a", "2"), "ns"); err != nil {
					t.Fatal(err)
				}
				// Each of four sources waits for at least half of lastWait, but for the first few times in each period.
				periods := 1 + int(away/backoffReset)
				if asked, most := o.end(), 4*(periods*4+int(away/(lastWait/2))); asked == 0 || asked > most {
					t.Errorf("asked %d times in %v, want at most %d", asked, away, most)
				}
				time.Sleep(lastWait + 2*backoff.Duration) // to watch, and after that to list
				want(t, s, map[string]string{"service a": "2", "slice a-1": "1"})
			})
		})
	}
}

func TestObjectsAreTrimmedToWhatIsRead(t *testing.T) {
	full := metav1.ObjectMeta{
		Namespace: "ns", Name: "a", UID: "u", ResourceVersion: "1", CreationTimestamp: metav1.Unix(1, 0),
		Annotations: map[string]string{"x": "y", corev1.EndpointsLastChangeTriggerTime: "t"},
		Labels: map[string]string{"x": "y", "k8s-app": "kube-dns", discoveryv1.LabelServiceName: "a",
			corev1.LabelTopologyZone: "z", corev1.LabelTopologyRegion: "r"},
		ManagedFields:   []metav1.ManagedFieldsEntry{{Manager: "m"}},
		OwnerReferences: []metav1.OwnerReference{{Name: "o"}},
		Finalizers:      []string{"f"},
	}
	trimmed := func(annotations, labels map[string]string) metav1.ObjectMeta {
		m := full
		m.Annotations, m.Labels, m.ManagedFields, m.OwnerReferences, m.Finalizers = annotations, labels, nil, nil, nil
		return m
	}
	text := "t"
	s := service("a", "1")
	s.ObjectMeta, s.Spec.Selector = *full.DeepCopy(), map[string]string{"app": "a"}
	wantService := service("a", "1")
	wantService.ObjectMeta = trimmed(nil, map[string]string{"k8s-app": "kube-dns"})
	e := slice("a-1", "1", "10.0.0.1")
	e.ObjectMeta, e.Endpoints[0].TargetRef, e.Endpoints[0].Hostname = *full.DeepCopy(), &corev1.ObjectReference{Name: "p"}, &text
	e.Endpoints[0].NodeName, e.Endpoints[0].Zone = &text, &text
	wantSlice := slice("a-1", "1", "10.0.0.1")
	wantSlice.ObjectMeta = trimmed(map[string]string{corev1.EndpointsLastChangeTriggerTime: "t"}, map[string]string{discoveryv1.LabelServiceName: "a"})
	wantSlice.Endpoints[0].NodeName, wantSlice.Endpoints[0].Zone = &text, &text
	n := &corev1.Node{ObjectMeta: *full.DeepCopy(), Spec: corev1.NodeSpec{PodCIDRs: []string{"c"}, ProviderID: "p", Taints: []corev1.Taint{{Key: "k"}}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "a"}}, Images: []corev1.ContainerImage{{Names: []string{"i"}}}}}
	wantNode := &corev1.Node{ObjectMeta: trimmed(nil, map[string]string{corev1.LabelTopologyZone: "z"}),
		Spec:   corev1.NodeSpec{PodCIDRs: []string{"c"}, Taints: []corev1.Taint{{Key: "k"}}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "a"}}}}
	for range 2 { // an object may pass twice
		trimService(s)
		trimEndpointSlice(e)
		trimNode(n)
		for _, diff := range []string{cmp.Diff(wantService, s), cmp.Diff(wantSlice, e), cmp.Diff(wantNode, n)} {
			if diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
}

// nodes never change.
type nodes struct{ node proxy.Node }

func (n *nodes) Changed() <-chan struct{}      { return nil }
func (n *nodes) Node(proxy.Family) *proxy.Node { return &n.node }

// counter counts calls.
type counter struct {
	lock  sync.Mutex
	calls int
}

func (c *counter) Resync(string) {}
func (c *counter) Apply(context.Context, *proxy.Snapshot) (proxy.Report, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.calls++
	return proxy.Report{}, nil
}

func (c *counter) taken() int {
	c.lock.Lock()
	defer c.lock.Unlock()
	calls := c.calls
	c.calls = 0
	return calls
}

// What the API server and informers send again without a change must not reach the kernel.
func TestEqualResendOfEverythingCausesNoApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slices = 100
		objects := []runtime.Object{service("a", "1")}
		for i := range slices {
			objects = append(objects, slice(fmt.Sprintf("a-%d", i), "1", fmt.Sprintf("10.0.0.%d", i+1)))
		}
		client := fake.NewClientset(objects...)
		tracker, dataplane := track.New(track.Config{}), &counter{}
		w := New(Config{Client: client, Sink: tracker, NodeName: "n1", SetNode: func(*corev1.Node) {},
			SetServiceCIDRs: func(string, []netip.Prefix) {}, ResyncPeriod: 10 * time.Minute})
		run(t.Context(), t, w.Run)
		l := loop.New(loop.Config{Changes: tracker, Nodes: &nodes{proxy.Node{Name: "n1"}}, Synced: w.Synced(),
			Dataplanes: map[proxy.Family]proxy.Dataplane{proxy.IPv4: dataplane}})
		run(t.Context(), t, l.Run)
		synctest.Wait()
		if calls := dataplane.taken(); calls != 1 {
			t.Errorf("%d calls for the first state, want 1", calls)
		}
		for i := range slices {
			again := slice(fmt.Sprintf("a-%d", i), "2", fmt.Sprintf("10.0.0.%d", i+1))
			again.Annotations = map[string]string{"leader": "changed"}
			if _, err := client.DiscoveryV1().EndpointSlices("ns").Update(t.Context(), again, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		<-time.After(time.Hour) // informers resync several times
		synctest.Wait()
		if calls := dataplane.taken(); calls != 0 {
			t.Errorf("%d calls for equal objects, want 0", calls)
		}
		if _, err := client.DiscoveryV1().EndpointSlices("ns").Update(t.Context(), slice("a-1", "3", "10.0.1.1"), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if calls := dataplane.taken(); calls != 1 {
			t.Errorf("%d calls for a change, want 1", calls)
		}
	})
}

// What the API server says is heard, a bookmark too; what is only passed on again is not.
func TestSilenceIsTimeSinceAnythingWasSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newStore(trimService, func(*corev1.Service) {}, func(*corev1.Service) {})
		w := New(Config{Client: fake.NewClientset(), Sink: &sink{}})
		w.services.store = st
		if s := w.Silence(); len(s) > 0 {
			t.Errorf("before anything was said: %v", s)
		}
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s"}}
		for what, say := range map[string]func() error{
			"list":     func() error { return st.Replace([]any{service}, "1") },
			"change":   func() error { return st.Update(service) },
			"deletion": func() error { return st.Delete(service) },
			"bookmark": func() error { return st.Bookmark("2") },
		} {
			if err := say(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if err := st.Resync(); err != nil {
				t.Fatal(err)
			}
			if got := w.Silence()["services"]; got != time.Minute {
				t.Errorf("a minute after a %s: %v", what, got)
			}
		}
	})
}
