package suite

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/sluice-proxy/sluice/e2e/cluster/controlplane"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// Cluster is a control plane on the remote node of a lab. Suites play the parts of controllers and kubelets.
type Cluster struct {
	*controlplane.ControlPlane
	API kubernetes.Interface
}

// StartCluster runs a control plane until the test ends. What cfg leaves out is the remote node of the lab, a
// directory of the test, and the lab's ranges of ClusterIPs in both families.
func StartCluster(t *testing.T, l *lab.Lab, cfg controlplane.Config) *Cluster {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.ServiceCIDRs == nil {
		cfg.ServiceCIDRs = []netip.Prefix{lab.ServiceCIDR, lab.PrefixIn(proxy.IPv6, lab.ServiceCIDR)}
	}
	cfg.Namespace, cfg.Addr, cfg.APIServer = l.Remote.Namespace, l.Remote.Addr(proxy.IPv4), APIServer
	plane, err := controlplane.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := plane.Stop(); err != nil {
			t.Errorf("stop control plane: %v", err)
		}
	})
	c := &Cluster{ControlPlane: plane}
	if c.API, err = kubernetes.NewForConfig(c.RESTConfig()); err != nil {
		t.Fatal(err)
	}
	return c
}

// RESTConfig is for an administrator, who is not told what is deprecated.
func (c *Cluster) RESTConfig() *rest.Config {
	config := c.ControlPlane.RESTConfig()
	config.WarningHandler = rest.NoWarnings{}
	return config
}

// WriteKubeconfig gives the path of a file with which a user reaches the API server.
func (c *Cluster) WriteKubeconfig(t *testing.T, user string) string {
	t.Helper()
	config, err := c.Kubeconfig(user)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Node is a Node object with an address and a range for its pods, both in both families.
func Node(name, zone string, ip netip.Addr, pods netip.Prefix) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
	for _, f := range proxy.Families {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, lab.PrefixIn(f, pods).String())
		addr := corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: lab.In(f, ip).String()}
		node.Status.Addresses = append(node.Status.Addresses, addr)
	}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	return node
}

// CreateNode makes the object with its addresses, as kubelet and the node controller do together.
func (c *Cluster) CreateNode(t *testing.T, node *corev1.Node) {
	t.Helper()
	made, err := c.API.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made.Status.Addresses = node.Status.Addresses
	if _, err := c.API.CoreV1().Nodes().UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
