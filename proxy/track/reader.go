package track

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

// The label that takes a Service away from the node's default proxy, whatever its value.
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// reader turns objects into values of the policy, leaving out what cannot be used.
type reader struct {
	externalIPs bool
	priority    map[proxy.ServiceName]bool
	started     time.Time
	logger      klog.Logger
	names       interner
}

func newReader(cfg Config) reader {
	r := reader{
		externalIPs: cfg.ExternalIPs,
		priority: map[proxy.ServiceName]bool{
			{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}: true,
			{Namespace: metav1.NamespaceSystem, Name: "kube-dns"}:    true,
		},
		started: cfg.Started,
		logger:  cfg.Logger,
		names:   newInterner(),
	}
	for _, name := range cfg.Priority {
		r.priority[name] = true
	}
	if r.started.IsZero() {
		r.started = time.Now()
	}
	if r.logger.GetSink() == nil {
		r.logger = klog.Background()
	}
	return r
}

// trigger is when the endpoints changed in the cluster; zero if nobody noted it or it was before the
// process started.
func (r *reader) trigger(obj *discoveryv1.EndpointSlice) time.Time {
	at, err := time.Parse(time.RFC3339Nano, obj.Annotations[corev1.EndpointsLastChangeTriggerTime])
	if err != nil || !at.After(r.started) {
		return time.Time{}
	}
	return at
}

// maxInterned bounds the names that are kept for comparison: those of nodes that are long gone would
// pile up otherwise.
const maxInterned = 1 << 16

// interner makes equal strings, and equal lists of strings, share their memory.
type interner struct {
	strings map[string]string
	lists   map[string][]string
}

func newInterner() interner {
	return interner{strings: map[string]string{}, lists: map[string][]string{}}
}

func (n *interner) string(s string) string {
	if known, ok := n.strings[s]; ok {
		return known
	}
	if len(n.strings) >= maxInterned {
		clear(n.strings)
	}
	s = strings.Clone(s)
	n.strings[s] = s
	return s
}

// set is the sorted list of the distinct strings in list, nil if there are none.
func (n *interner) set(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	slices.Sort(list)
	list = slices.Compact(list)
	// No name has a line break in it, or else it equals no node's and no zone's.
	key := strings.Join(list, "\n")
	if known, ok := n.lists[key]; ok {
		return known
	}
	if len(n.lists) >= maxInterned {
		clear(n.lists)
	}
	kept := make([]string, len(list))
	for i, s := range list {
		kept[i] = n.string(s)
	}
	n.lists[strings.Clone(key)] = kept
	return kept
}
