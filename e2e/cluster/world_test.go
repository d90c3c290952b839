package cluster

import (
	"fmt"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-proxy/sluice/e2e/cluster/controlplane"
	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	user       = "sluice"
	nodeName   = "node"
	remoteName = "remote"
	zone       = "zone-a"

	// Servers listen on targetPort wherever they are; Services have servicePort.
	targetPort  = 8080
	servicePort = 80
)

// world is a cluster with one node under test, on which Sluice runs in one mode.
type world struct {
	*lab.Lab
	mode       suite.Mode
	kernel     kernel
	plane      *suite.Cluster
	api        kubernetes.Interface
	kubeconfig string
	sluice     *suite.Sluice
	before     map[string]string
}

// newWorld makes a cluster in which Sluice does not run yet.
func newWorld(t *testing.T, mode suite.Mode) *world {
	mode.Require(t)
	k, known := kernels[mode.Mode]
	if !known {
		t.Fatalf("nothing says how mode %s programs the kernel", mode.Mode)
	}
	w := &world{Lab: lab.Start(t, lab.Config{}), mode: mode, kernel: k}
	w.serve(t)
	w.plane = suite.StartCluster(t, w.Lab, controlplane.Config{Users: []string{user}})
	w.api, w.kubeconfig = w.plane.API, w.plane.WriteKubeconfig(t, user)
	w.grant(t)
	w.plane.CreateNode(t, suite.Node(nodeName, zone, lab.NodeIP, lab.NodeCIDR))
	w.sluice = suite.NewSluice(t, w.Node)
	w.leaveForeignRules(t)
	return w
}

// serve starts a server of each protocol in every pod.
func (w *world) serve(t *testing.T) {
	for _, h := range append(append([]*lab.Host{}, w.Pods...), w.RemotePods...) {
		for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP, proxy.SCTP} {
			if err := h.Serve(p, targetPort); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// grant gives Sluice's user the rights that the documentation asks for, and no other.
func (w *world) grant(t *testing.T) {
	watch := []string{"list", "watch"}
	_, err := w.api.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: watch},
			{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: append([]string{"get"}, watch...)},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: watch},
			{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: watch},
			{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch", "update"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.api.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// launch starts Sluice without waiting for it.
func (w *world) launch(t *testing.T) {
	t.Helper()
	w.sluice.Launch(t, append([]string{
		sluiceBinary,
		"--kubeconfig", w.kubeconfig,
		"--hostname-override", nodeName,
		"--cluster-cidr", fmt.Sprintf("%v,%v", lab.ClusterCIDR, lab.PrefixIn(proxy.IPv6, lab.ClusterCIDR)),
		"--nodeport-addresses", "all", // whatever the mode's default is
		"-v", "2",
	}, w.mode.Flags...)...)
}

// start starts Sluice and waits until it says that the node is served.
func (w *world) start(t *testing.T) {
	t.Helper()
	w.launch(t)
	w.awaitHealthy(t)
}

func (w *world) awaitHealthy(t *testing.T) { t.Helper(); w.sluice.AwaitHealthy(t, w.Client) }

// stop ends Sluice as its supervisor does.
func (w *world) stop(t *testing.T) { t.Helper(); w.sluice.Terminate(t) }

var eventually = suite.Eventually
