package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/report"
)

const (
	// A cluster-wide mistake makes every node speak, so each of them must be brief.
	eventsPerSecond = 0.2
	eventsAtOnce    = 25
)

// recorder records Events in the cluster, within limits.
type recorder struct {
	broadcaster events.EventBroadcaster
	recorder    events.EventRecorder
	limiter     flowcontrol.PassiveRateLimiter
	nodeRef     *corev1.ObjectReference
	serviceUID  func(proxy.ServiceName) types.UID // kubectl describe looks for Events by it
}

func newRecorder(client kubernetes.Interface, nodeName string, serviceUID func(proxy.ServiceName) types.UID) *recorder {
	b := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	return &recorder{
		broadcaster: b,
		recorder:    b.NewRecorder(runtime.NewScheme(), "sluice"),
		limiter:     flowcontrol.NewTokenBucketPassiveRateLimiter(eventsPerSecond, eventsAtOnce),
		// kubelet and others use the name as the UID of a Node in Events, so that they are found.
		nodeRef:    &corev1.ObjectReference{Kind: "Node", Name: nodeName, UID: types.UID(nodeName)},
		serviceUID: serviceUID,
	}
}

func (r *recorder) start(ctx context.Context) {
	if err := r.broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "Events are not recorded")
	}
}

func (r *recorder) stop() { r.broadcaster.Shutdown() }

// service records an Event of a Service.
func (r *recorder) service(name proxy.ServiceName, e report.Event) {
	r.record(&corev1.ObjectReference{
		APIVersion: "v1", Kind: "Service", Namespace: name.Namespace, Name: name.Name, UID: r.serviceUID(name),
	}, e)
}

// node records an Event of this Node.
func (r *recorder) node(e report.Event) { r.record(r.nodeRef, e) }

func (r *recorder) record(regarding *corev1.ObjectReference, e report.Event) {
	if !r.limiter.TryAccept() {
		klog.Background().V(2).Info("Event not recorded, there were too many", "regarding", regarding.Name, "reason", e.Reason, "note", e.Note)
		return
	}
	kind := corev1.EventTypeNormal
	if e.Warning {
		kind = corev1.EventTypeWarning
	}
	r.recorder.Eventf(regarding, nil, kind, e.Reason, e.Action, "%s", e.Note)
}
