package faults

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-proxy/sluice/e2e/cluster/controlplane"
	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	user     = "system:kube-proxy" // its rights come with every cluster
	nodeName = "node"
	zone     = "zone-a"
)

// world is a cluster with one node under test, on which Sluice runs in one mode.
type world struct {
	*lab.Lab
	mode       suite.Mode
	kernel     kernel
	plane      *suite.Cluster
	api        kubernetes.Interface
	kubeconfig string
	services
	sluice *suite.Sluice
}

func newWorld(t *testing.T, mode suite.Mode) *world {
	mode.Require(t)
	k, known := kernels[mode.Mode]
	if !known {
		t.Fatalf("nothing says how mode %s can be broken", mode.Mode)
	}
	w := &world{Lab: lab.Start(t, lab.Config{}), mode: mode, kernel: k}
	w.plane = suite.StartCluster(t, w.Lab, controlplane.Config{Users: []string{user}})
	w.api, w.kubeconfig = w.plane.API, w.plane.WriteKubeconfig(t, user)
	w.plane.CreateNode(t, w.node(lab.NodeIP, lab.NodeCIDR))
	w.createServices(t)
	w.sluice = suite.NewSluice(t, w.Node)
	w.start(t)
	return w
}

// node is the Node object with these facts, in both families.
func (w *world) node(ip netip.Addr, pods netip.Prefix) *corev1.Node {
	return suite.Node(nodeName, zone, ip, pods)
}

// command is what starts Sluice. Later flags replace earlier ones.
func (w *world) command(flags ...string) []string {
	return slices.Concat([]string{
		sluiceBinary,
		"--kubeconfig", w.kubeconfig,
		"--hostname-override", nodeName,
		"--cluster-cidr", fmt.Sprintf("%v,%v", lab.ClusterCIDR, lab.PrefixIn(proxy.IPv6, lab.ClusterCIDR)),
		"-v", "2",
	}, w.mode.Flags, flags)
}

// launch runs a command on the node without waiting for anything.
func (w *world) launch(t *testing.T, command ...string) { t.Helper(); w.sluice.Launch(t, command...) }

// start starts Sluice and waits until it says that the node is served.
func (w *world) start(t *testing.T, flags ...string) {
	t.Helper()
	w.launch(t, w.command(flags...)...)
	w.awaitHealthy(t)
}

func (w *world) awaitHealthy(t *testing.T) { t.Helper(); w.sluice.AwaitHealthy(t, w.Client) }

// stop ends Sluice as its supervisor does.
func (w *world) stop(t *testing.T) { t.Helper(); w.sluice.Terminate(t) }

// said is what the newest process wrote.
func (w *world) said(t *testing.T) string { t.Helper(); return w.sluice.Said(t) }

var eventually = suite.Eventually
