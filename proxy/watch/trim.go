package watch

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What stays of an object is what the tracker, nodeinfo, the health server or an Event reads. The rest
// would be most of this process's memory in a large cluster. Trimming what is trimmed changes nothing.

func trimService(s *corev1.Service) {
	trimMeta(&s.ObjectMeta, []string{annotationScheduler}, []string{"k8s-app", labelServiceProxyName})
	s.Spec.Selector = nil
	s.Status.Conditions = nil
}

func trimEndpointSlice(s *discoveryv1.EndpointSlice) {
	trimMeta(&s.ObjectMeta, []string{corev1.EndpointsLastChangeTriggerTime}, []string{discoveryv1.LabelServiceName, corev1.IsHeadlessService})
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.Hostname, e.TargetRef, e.DeprecatedTopology = nil, nil, nil
	}
}

func trimNode(n *corev1.Node) {
	trimMeta(&n.ObjectMeta, nil, []string{corev1.LabelTopologyZone})
	n.Spec = corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs, Taints: n.Spec.Taints}
	n.Status = corev1.NodeStatus{Addresses: n.Status.Addresses}
}

func trimServiceCIDR(c *networkingv1.ServiceCIDR) {
	trimMeta(&c.ObjectMeta, nil, nil)
	c.Status = networkingv1.ServiceCIDRStatus{}
}

func trimMeta(m *metav1.ObjectMeta, annotations, labels []string) {
	*m = metav1.ObjectMeta{
		Name:              m.Name,
		Namespace:         m.Namespace,
		UID:               m.UID,
		ResourceVersion:   m.ResourceVersion,
		Generation:        m.Generation,
		CreationTimestamp: m.CreationTimestamp,
		DeletionTimestamp: m.DeletionTimestamp,
		Annotations:       only(m.Annotations, annotations),
		Labels:            only(m.Labels, labels),
	}
}

// only is m without what keys does not name; nil rather than empty.
func only(m map[string]string, keys []string) map[string]string {
	kept := make(map[string]string, len(keys))
	for _, key := range keys {
		if value, ok := m[key]; ok {
			kept[key] = value
		}
	}
	if len(kept) == 0 {
		return nil
	}
	if maps.Equal(kept, m) {
		return m
	}
	return kept
}
