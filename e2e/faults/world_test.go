package faults

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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-proxy/sluice/e2e/cluster/controlplane"
	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	user     = "system:kube-proxy" // its rights come with every cluster
	nodeName = "node"
	zone     = "zone-a"

	// patience is how long the suite waits for what must come: as long as a loaded machine may need.
	patience = 2 * time.Minute
)

// world is a cluster with one node under test, on which Sluice uses one of the iptables backends.
type world struct {
	*lab.Lab
	backend    string
	dir        string
	plane      *controlplane.ControlPlane
	api        kubernetes.Interface
	kubeconfig string
	services

	sluice *process.Process // nil while stopped
	logs   []*os.File       // of every process so far
}

func newWorld(t *testing.T, backend string) *world {
	w := &world{Lab: lab.Start(t, lab.Config{}), backend: backend, dir: t.TempDir()}
	w.startPlane(t)
	w.createNode(t, w.node(lab.NodeIP, lab.NodeCIDR))
	w.createServices(t)
	t.Cleanup(func() { w.end(t) })
	w.start(t)
	return w
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

// node is the Node object with these facts, in both families.
func (w *world) node(ip netip.Addr, pods netip.Prefix) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
	node.Labels = map[string]string{corev1.LabelTopologyZone: zone}
	for _, f := range proxy.Families {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, lab.PrefixIn(f, pods).String())
		addr := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: lab.In(f, ip).String()}
		node.Status.Addresses = append(node.Status.Addresses, addr)
	}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	return node
}

// createNode makes the object, as kubelet and the node controller do together.
func (w *world) createNode(t *testing.T, node *corev1.Node) {
	t.Helper()
	made, err := w.api.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made.Status.Addresses = node.Status.Addresses
	if _, err := w.api.CoreV1().Nodes().UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// command is what starts Sluice. Later flags replace earlier ones.
func (w *world) command(flags ...string) []string {
	return append([]string{
		sluiceBinary,
		"--kubeconfig", w.kubeconfig,
		"--hostname-override", nodeName,
		"--cluster-cidr", fmt.Sprintf("%v,%v", lab.ClusterCIDR, lab.PrefixIn(proxy.IPv6, lab.ClusterCIDR)),
		"--iptables-backend", w.backend,
		"--iptables-min-sync-period", "100ms", // the suite makes one change after another
		"-v", "2",
	}, flags...)
}

// launch runs a command on the node without waiting for anything.
func (w *world) launch(t *testing.T, command ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(w.dir, fmt.Sprintf("sluice-%d.log", len(w.logs))))
	if err != nil {
		t.Fatal(err)
	}
	w.logs = append(w.logs, log)
	if w.sluice, err = process.Start(w.Node.Namespace, log, command[0], command[1:]...); err != nil {
		t.Fatal(err)
	}
}

// start starts Sluice and waits until it says that the node is served.
func (w *world) start(t *testing.T, flags ...string) {
	t.Helper()
	w.launch(t, w.command(flags...)...)
	w.awaitHealthy(t)
}

func (w *world) awaitHealthy(t *testing.T) {
	t.Helper()
	eventually(t, "healthz is 200", func() error {
		select {
		case <-w.sluice.Done():
			return fmt.Errorf("sluice ended: %w", w.sluice.Err())
		default:
			return w.healthy()
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

// said is what the newest process wrote.
func (w *world) said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(w.logs[len(w.logs)-1].Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// end stops Sluice for good and shows what it said if the suite failed.
func (w *world) end(t *testing.T) {
	if w.sluice != nil {
		w.stop(t)
	}
	for _, log := range w.logs {
		_ = log.Close()
		text, err := os.ReadFile(log.Name())
		if err != nil {
			t.Error(err)
		}
		if bytes.Contains(text, []byte("DATA RACE")) {
			t.Errorf("sluice has a data race, see %s", filepath.Base(log.Name()))
		}
		if t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(log.Name()), lastLines(text, 60))
		}
	}
}

func lastLines(text []byte, n int) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], nil)
}

// eventually waits until check returns nil.
func eventually(t testing.TB, what string, check func() error) {
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
