package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-proxy/sluice/e2e/cluster/controlplane"
	"github.com/sluice-proxy/sluice/e2e/process"
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

	// patience is how long the suite waits for what must come: as long as a loaded machine may need.
	patience = time.Minute
)

// world is a cluster with one node under test, on which Sluice uses one of the iptables backends.
type world struct {
	*lab.Lab
	backend    string
	dir        string
	plane      *controlplane.ControlPlane
	api        kubernetes.Interface
	kubeconfig string

	log    *os.File
	sluice *process.Process // nil while stopped
	before map[string]string
}

// newWorld makes a cluster in which Sluice does not run yet.
func newWorld(t *testing.T, backend string) *world {
	w := &world{Lab: lab.Start(t, lab.Config{}), backend: backend, dir: t.TempDir()}
	w.serve(t)
	w.startPlane(t)
	w.grant(t)
	w.createNode(t)
	var err error
	if w.log, err = os.Create(filepath.Join(w.dir, "sluice.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.end(t) })
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

// startPlane runs the control plane on the remote node.
func (w *world) startPlane(t *testing.T) {
	dir := filepath.Join(w.dir, "plane")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	w.plane, err = controlplane.Start(t.Context(), controlplane.Config{
		Dir:          dir,
		Namespace:    w.Remote.Namespace,
		Addr:         w.Remote.Addr(proxy.IPv4),
		ServiceCIDRs: []netip.Prefix{lab.ServiceCIDR, lab.PrefixIn(proxy.IPv6, lab.ServiceCIDR)},
		APIServer:    apiserverBinary,
		Users:        []string{user},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.plane.Stop(); err != nil {
			t.Errorf("stop control plane: %v", err)
		}
	})
	if w.api, err = kubernetes.NewForConfig(w.plane.RESTConfig()); err != nil {
		t.Fatal(err)
	}
	config, err := w.plane.Kubeconfig(user)
	if err != nil {
		t.Fatal(err)
	}
	w.kubeconfig = filepath.Join(w.dir, "kubeconfig")
	if err := os.WriteFile(w.kubeconfig, config, 0o600); err != nil {
		t.Fatal(err)
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

func (w *world) createNode(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
	node.Labels = map[string]string{corev1.LabelTopologyZone: zone}
	for _, f := range proxy.Families {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, lab.PrefixIn(f, lab.NodeCIDR).String())
	}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	node, err := w.api.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range proxy.Families {
		addr := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: lab.In(f, lab.NodeIP).String()}
		node.Status.Addresses = append(node.Status.Addresses, addr)
	}
	if _, err = w.api.CoreV1().Nodes().UpdateStatus(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// launch starts Sluice without waiting for it.
func (w *world) launch(t *testing.T) {
	t.Helper()
	var err error
	w.sluice, err = process.Start(w.Node.Namespace, w.log, sluiceBinary,
		"--kubeconfig", w.kubeconfig,
		"--hostname-override", nodeName,
		"--cluster-cidr", fmt.Sprintf("%v,%v", lab.ClusterCIDR, lab.PrefixIn(proxy.IPv6, lab.ClusterCIDR)),
		"--iptables-backend", w.backend,
		"--iptables-min-sync-period", "100ms", // the suite makes one change after another
		"-v", "2",
	)
	if err != nil {
		t.Fatal(err)
	}
}

// start starts Sluice and waits until it says that the node is served.
func (w *world) start(t *testing.T) {
	t.Helper()
	w.launch(t)
	w.awaitHealthy(t)
}

func (w *world) awaitHealthy(t *testing.T) {
	t.Helper()
	eventually(t, "healthz is 200", func() error {
		select {
		case <-w.sluice.Done():
			return fmt.Errorf("sluice ended: %w", w.sluice.Err())
		default:
			return w.wantStatus(healthzURL, 200)
		}
	})
}

// stop ends Sluice as its supervisor does.
func (w *world) stop(t *testing.T) {
	t.Helper()
	if err := w.sluice.Stop(); err != nil {
		t.Errorf("sluice did not end well after SIGTERM: %v", err)
	}
	w.sluice = nil
}

// end stops Sluice for good and shows its log if the suite failed.
func (w *world) end(t *testing.T) {
	if w.sluice != nil {
		w.stop(t)
	}
	_ = w.log.Close()
	text, err := os.ReadFile(w.log.Name())
	if err != nil {
		t.Error(err)
	}
	if bytes.Contains(text, []byte("DATA RACE")) {
		t.Error("sluice has a data race, see its log")
	}
	if t.Failed() {
		t.Logf("log of sluice:\n%s", lastLines(text, 200))
	}
}

func lastLines(text []byte, n int) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], nil)
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}
