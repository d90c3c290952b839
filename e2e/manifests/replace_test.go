package manifests

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/e2e/load"
	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// settled is how many connections a load makes before a step counts as survived.
const settled = 200

// A node goes from kube-proxy to Sluice and back, in the steps of docs/operate.md, and no connection is lost.
func TestNodeGoesFromKubeProxyToSluiceAndBack(t *testing.T) {
	for _, mode := range []string{"iptables", "nftables"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			goAndComeBack(t, newWorld(t, "overlays/"+mode))
		})
	}
}

func goAndComeBack(t *testing.T, w *world) {
	w.install(t)
	kubeProxy := w.kubeProxy(t)

	old := kubeProxy.start(t, w.Node)
	old.awaitReady(t)
	traffic := startTraffic(t, w)
	traffic.pass()

	old.Kill() // it does not end by itself after SIGTERM
	traffic.pass()
	w.init(t).start(t, w.Node).succeeds(t)
	sluice := w.main(t, w.server()).start(t, w.Node)
	sluice.awaitReady(t)
	traffic.leadsTo(w.Pods[2])
	kubeProxy.with("--cleanup").start(t, w.Node).succeeds(t)
	traffic.pass()
	if rules := w.rules(t); strings.Contains(rules, "KUBE-SVC") || !hasRulesOfSluice(rules) {
		t.Errorf("after the clean-up of kube-proxy:\n%s", rules)
	}
	traffic.leadsTo(w.Pods[1])

	sluice.stop(t)
	kubeProxy.start(t, w.Node)
	eventually(t, "kube-proxy has written rules", func() error { // it calls itself healthy before that
		if rules := w.rules(t); !strings.Contains(rules, "jump KUBE-SVC") {
			return fmt.Errorf("no Service in:\n%s", rules)
		}
		return nil
	})
	w.cleanup().start(t, w.Node).succeeds(t)
	if rules := w.rules(t); !strings.Contains(rules, "KUBE-SVC") || hasRulesOfSluice(rules) {
		t.Errorf("after the clean-up of Sluice:\n%s", rules)
	}
	traffic.leadsTo(w.Pods[2])
	traffic.end()
}

// kubeProxyUser has the rights of kube-proxy in every cluster.
const kubeProxyUser = "system:kube-proxy"

// kubeProxy is the container of kube-proxy, with the usual privileges and the probes of Sluice, which suit it too.
func (w *world) kubeProxy(t *testing.T) container {
	t.Helper()
	config, err := w.plane.Kubeconfig(kubeProxyUser)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, config, 0o600); err != nil {
		t.Fatal(err)
	}
	spec := w.daemonSet.Spec.Template.Spec.Containers[0].DeepCopy()
	spec.Name = "kube-proxy"
	spec.SecurityContext = w.daemonSet.Spec.Template.Spec.InitContainers[0].SecurityContext
	spec.Args = []string{
		"--kubeconfig=" + kubeconfig, "--hostname-override=" + nodeName, "--cluster-cidr=" + lab.ClusterCIDR.String(),
		"--conntrack-max-per-core=0", // as for Sluice
	}
	return container{spec: *spec, program: suite.KubeProxy}
}

// rules are all of nf_tables: those of the backend that both proxies choose, and those of mode nftables.
func (w *world) rules(t *testing.T) string {
	t.Helper()
	out, err := w.Node.Run("nft", "list", "ruleset")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// hasRulesOfSluice tells whether there are any, of whatever mode.
func hasRulesOfSluice(rules string) bool {
	return strings.Contains(rules, "SLUICE-") || strings.Contains(rules, "table ip sluice {") || strings.Contains(rules, "table ip sluice-ipvs {")
}

// traffic is a load on a Service, by its ClusterIP and its NodePort, and a connection that stays open.
type traffic struct {
	*testing.T
	*world
	backend *lab.Host
	loads   []*load.Load
	long    *lab.Conn
	first   lab.Outcome // what the long connection said
}

// startTraffic creates a Service that leads to the second pod, and uses it.
func startTraffic(t *testing.T, w *world) *traffic {
	t.Helper()
	service, err := w.api.CoreV1().Services(metav1.NamespaceDefault).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: servicePort}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tr := &traffic{T: t, world: w, backend: w.Pods[1]}
	slice := tr.slice(tr.backend)
	if _, err := w.api.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, pod := range w.Pods {
		if err := pod.Serve(proxy.TCP, targetPort); err != nil {
			t.Fatal(err)
		}
	}
	byClusterIP := lab.Probe{
		Protocol: proxy.TCP, Timeout: answerLimit,
		To: netip.AddrPortFrom(netip.MustParseAddr(service.Spec.ClusterIP), servicePort),
	}
	byNodePort := byClusterIP
	byNodePort.To = netip.AddrPortFrom(lab.NodeIP, uint16(service.Spec.Ports[0].NodePort))
	eventually(t, "the Service is served", func() error {
		for host, probe := range map[*lab.Host]lab.Probe{w.Pods[0]: byClusterIP, w.Client: byNodePort} {
			if o := host.Probe(probe); o.Result != lab.Answered {
				return fmt.Errorf("%s: %v", host.Name, o)
			}
		}
		return nil
	})
	if tr.long, tr.first = w.Client.Connect(byNodePort); tr.long == nil {
		t.Fatalf("long connection: %v", tr.first)
	}
	t.Cleanup(tr.long.Close)
	tr.loads = []*load.Load{load.Start(w.Pods[0], byClusterIP), load.Start(w.Client, byNodePort)}
	return tr
}

// slice says that the Service leads to a pod.
func (tr *traffic) slice(pod *lab.Host) *discoveryv1.EndpointSlice {
	port := int32(targetPort)
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Port: &port}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{pod.Addr(proxy.IPv4).String()}}},
	}
}

// pass waits until the load made many more connections.
func (tr *traffic) pass() {
	tr.Helper()
	for _, l := range tr.loads {
		goal := l.Total() + settled
		eventually(tr.T, "the load goes on", func() error {
			if n := l.Total(); n < goal {
				return fmt.Errorf("%d connections, want %d", n, goal)
			}
			return nil
		})
	}
}

// leadsTo moves the Service to a pod, and waits until nobody reaches the one before.
func (tr *traffic) leadsTo(pod *lab.Host) {
	tr.Helper()
	if _, err := tr.api.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Update(tr.Context(), tr.slice(pod), metav1.UpdateOptions{}); err != nil {
		tr.Fatal(err)
	}
	for _, l := range tr.loads {
		eventually(tr.T, "the load reaches "+pod.Name+" alone", func() error {
			if l.Absent(tr.backend.Name) < settled {
				return fmt.Errorf("%s still gets connections", tr.backend.Name)
			}
			return nil
		})
	}
	tr.backend = pod
}

// end checks that no connection was lost.
func (tr *traffic) end() {
	tr.Helper()
	for _, l := range tr.loads {
		if c := l.Stop(); len(c.Failures) > 0 {
			tr.Errorf("connections were lost: %v", c)
		}
	}
	if o := tr.long.Again(answerLimit); o != tr.first {
		tr.Errorf("long connection: %v, was %v", o, tr.first)
	}
}
