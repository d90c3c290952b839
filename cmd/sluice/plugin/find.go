package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sluice-proxy/sluice/cmd/sluice/pods"
)

// usualSelectors are the labels of Sluice's pods: those of its own manifests, and those where only the image of kube-proxy's was changed.
var usualSelectors = []string{"app.kubernetes.io/name=sluice", "k8s-app=kube-proxy"}

// target is where a command runs.
type target struct{ namespace, pod, container, node string }

// resolve puts the address of a pod that args name into its place, and says on which node to ask: on that pod's if none is named. The
// Sluice of the node may not read pods.
func (c *cluster) resolve(ctx context.Context, node string, args []string) (string, []string, error) {
	from, _ := flag(args, "from")
	namespace, name, isPod, err := pods.Parse(from)
	if err != nil || !isPod {
		return node, args, err
	}
	pod, err := c.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", nil, fmt.Errorf("--from: %w", err)
	}
	if node == "" {
		node = pod.Spec.NodeName
	}
	ip := addressOf(pod, args)
	if node == "" || !ip.IsValid() {
		return "", nil, fmt.Errorf("--from: pod %s/%s has no node, or no address of the family of --to (it is %s)", namespace, name, pod.Status.Phase)
	}
	args = slices.Clone(args)
	for i := range args {
		args[i] = strings.Replace(args[i], from, ip.String(), 1)
	}
	return node, args, nil
}

// addressOf is the pod's address in the family of --to, or its first one if that does not tell.
func addressOf(pod *corev1.Pod, args []string) netip.Addr {
	to, _ := flag(args, "to")
	to, _, _ = strings.Cut(to, "/")
	target, err := netip.ParseAddrPort(to)
	return pods.Address(pod, func(a netip.Addr) bool { return err != nil || a.Is4() == target.Addr().Unmap().Is4() })
}

// flag is the value of --NAME in the arguments of a command.
func flag(args []string, name string) (string, bool) {
	for i, arg := range args {
		if value, found := strings.CutPrefix(arg, "--"+name+"="); found {
			return value, true
		}
		if arg == "--"+name && i+1 < len(args) {
			return args[i+1], true
		}
	}
	return "", false
}

// find is the pod of Sluice on a node. Without one it says where there are some.
func (c *cluster) find(ctx context.Context, o options, node string) (target, error) {
	selectors := usualSelectors
	if o.selector != "" {
		selectors = []string{o.selector}
	}
	for _, selector := range selectors {
		pods, err := c.client.CoreV1().Pods(o.namespace).List(ctx, metav1.ListOptions{
			LabelSelector: selector, FieldSelector: fields.OneTermEqualSelector("status.phase", string(corev1.PodRunning)).String(),
		})
		if err != nil {
			return target{}, fmt.Errorf("list the pods of Sluice: %w", err)
		}
		if len(pods.Items) > 0 {
			return choose(pods.Items, node)
		}
	}
	return target{}, fmt.Errorf("no pod of Sluice runs in namespace %s (labels %s)", o.namespace, strings.Join(selectors, " or "))
}

// choose picks the pod on a node: the newest, since an older one may be about to end.
func choose(pods []corev1.Pod, node string) (target, error) {
	var nodes []string
	var newest *corev1.Pod
	for i := range pods {
		p := &pods[i]
		nodes = append(nodes, p.Spec.NodeName)
		if p.Spec.NodeName == node && (newest == nil || newest.CreationTimestamp.Before(&p.CreationTimestamp)) {
			newest = p
		}
	}
	slices.Sort(nodes)
	list := strings.Join(slices.Compact(nodes), ", ")
	switch {
	case node == "":
		return target{}, fmt.Errorf("say with --node which node is asked, or with --from pod:NAMESPACE/NAME; Sluice runs on %s", list)
	case newest == nil:
		return target{}, fmt.Errorf("no Sluice runs on node %s; it runs on %s", node, list)
	case len(newest.Spec.Containers) == 0:
		return target{}, errors.New("the pod has no container")
	}
	container := newest.Spec.Containers[0].Name
	for _, c := range newest.Spec.Containers {
		if c.Name == "sluice" || c.Name == "kube-proxy" {
			container = c.Name
		}
	}
	return target{newest.Namespace, newest.Name, container, node}, nil
}
