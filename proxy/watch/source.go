package watch

import (
	"context"
	"errors"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// backoff is how long a source waits after each failure in a row: up to twice that, so that not all nodes ask at the
// same time. A node learns of all that changed while the API server was away within lastWait after its return.
// The informers of client-go, whose limits cannot be set, wait for up to a minute.
var backoff = wait.Backoff{Duration: 800 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 10, Cap: lastWait / 2}

const (
	lastWait = 10 * time.Second

	// backoffReset is how often waits begin anew with the shortest.
	backoffReset = 2 * time.Minute

	// lackedFor is how long a resource that the cluster lacks is not asked for again. It may come with an upgrade of
	// the API server, and one that starts refuses for a moment what it allows otherwise.
	lackedFor = 10 * time.Minute
)

// source passes on the objects of one resource.
type source struct {
	resource string
	api      cache.ListerWatcher
	store    reflected
	resync   time.Duration
	optional bool          // the cluster may lack the resource or refuse it
	lacking  bool          // it does, and that is logged
	absent   chan struct{} // closed when it first does
}

// reflected is a store of any type.
type reflected interface {
	cache.TransformingStore
	Listed() <-chan struct{}
	Silence() (since time.Duration, ever bool)
	UID(key string) types.UID
}

func (w *Watcher) source(resource string, api cache.ListerWatcher, store reflected) *source {
	return &source{resource: resource, api: api, store: store, resync: w.cfg.ResyncPeriod, absent: make(chan struct{})}
}

// lister is a typed client of a resource.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (apiwatch.Interface, error)
}

// listerWatcher asks for those objects of a resource that restrict leaves.
func listerWatcher[L runtime.Object](client kubernetes.Interface, api lister[L], restrict func(*metav1.ListOptions)) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			restrict(&o)
			return api.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			restrict(&o)
			return api.Watch(ctx, o)
		},
	}, client)
}

// run lists and watches until ctx ends.
func (s *source) run(ctx context.Context) {
	within := backoff // the reflector's own, for watches that fail without a new list
	r := cache.NewReflectorWithOptions(s.api, nil, s.store, cache.ReflectorOptions{
		Name:            "proxy/watch",
		TypeDescription: s.resource,
		ResyncPeriod:    s.resync,
		Backoff:         &within,
	})
	_ = backoff.DelayWithReset(clock.RealClock{}, backoffReset).Until(ctx, true, true, func(ctx context.Context) (bool, error) {
		if err := r.ListAndWatchWithContext(ctx); err != nil {
			s.failed(ctx, err)
		}
		return false, nil
	})
}

// failed logs why a list or watch ended, and waits if it will fail for long. What was last known stays in
// force meanwhile.
func (s *source) failed(ctx context.Context, err error) {
	log := klog.FromContext(ctx)
	switch {
	case s.optional && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err)):
		if !s.lacking {
			log.Info("Doing without a resource of the API server", "resource", s.resource, "reason", err.Error(), "retryEvery", lackedFor)
			s.lacking = true
			close(s.absent)
		}
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
