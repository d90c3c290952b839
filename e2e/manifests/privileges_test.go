package manifests

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	targetPort  = 8080
	servicePort = 80
	nodePort    = 30080
	answerLimit = 2 * time.Second
)

var virtualIP = netip.MustParseAddr("10.96.0.80")

// needs are the capabilities that each backend cannot do without.
var needs = map[string][]corev1.Capability{
	"nft":    {"NET_ADMIN"},
	"legacy": {"NET_ADMIN", "NET_RAW"},
}

// node is a machine on which the containers of the DaemonSet run, with Services from a directory instead of a cluster.
type node struct {
	*lab.Lab
	shipped
	backend string
	dir     string // of the manifests
}

func newNode(t *testing.T, backend string) *node {
	n := &node{Lab: lab.Start(t, lab.Config{}), shipped: loadShipped(t), backend: backend, dir: t.TempDir()}
	for _, pod := range n.Pods {
		for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP} {
			if err := pod.Serve(p, targetPort); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// init is the init container. Only the initial network namespace may change the size of the connection table, so the
// test cannot.
func (n *node) init() container {
	return n.container(n.daemonSet.Spec.Template.Spec.InitContainers[0], "--conntrack-max-per-core=0")
}

// main is the main container, with Services from files.
func (n *node) main() container {
	spec := n.daemonSet.Spec.Template.Spec.Containers[0].DeepCopy()
	spec.Args = slices.DeleteFunc(spec.Args, func(arg string) bool { return strings.HasPrefix(arg, "--kubeconfig=") })
	return n.container(*spec, "--manifest-dir="+n.dir, "--iptables-min-sync-period=100ms")
}

func (n *node) container(spec corev1.Container, args ...string) container {
	return container{
		spec: spec,
		env: map[string]string{
			"NODE_NAME":    nodeName,
			"CLUSTER_CIDR": fmt.Sprintf("%v,%v", lab.ClusterCIDR, lab.PrefixIn(proxy.IPv6, lab.ClusterCIDR)),
		},
		args: append(args, "--iptables-backend="+n.backend),
	}
}

// publish writes a Service in front of a pod.
func (n *node) publish(t *testing.T, pod *lab.Host) {
	t.Helper()
	text := fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIPs: [%v, "%v"]
  ports:
  - {name: tcp, protocol: TCP, port: %d, nodePort: %d}
  - {name: udp, protocol: UDP, port: %d, nodePort: %d}
`, virtualIP, lab.In(proxy.IPv6, virtualIP), servicePort, nodePort, servicePort, nodePort)
	for _, f := range proxy.Families {
		text += fmt.Sprintf(`---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-%s, labels: {kubernetes.io/service-name: web}}
addressType: %v
ports:
- {name: tcp, protocol: TCP, port: %d}
- {name: udp, protocol: UDP, port: %d}
endpoints: [{addresses: ["%v"]}]
`, strings.ToLower(f.String()), f, targetPort, targetPort, pod.Addr(f))
	}
	draft := filepath.Join(n.dir, ".draft")
	if err := os.WriteFile(draft, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(draft, filepath.Join(n.dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
}

// wantServed checks that the Service leads to a pod, also for UDP flows that led to another one before.
func (n *node) wantServed(t *testing.T, pod *lab.Host) {
	t.Helper()
	for _, f := range proxy.Families {
		for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP} {
			n.wantAnswer(t, n.Pods[0], lab.Probe{Protocol: p, To: netip.AddrPortFrom(lab.In(f, virtualIP), servicePort)}, pod)
			n.wantAnswer(t, n.Client, lab.Probe{Protocol: p, To: netip.AddrPortFrom(n.Node.Addr(f), nodePort)}, pod)
		}
		flow := netip.AddrPortFrom(n.Client.Addr(f), 4000)
		n.wantAnswer(t, n.Client, lab.Probe{Protocol: proxy.UDP, To: netip.AddrPortFrom(lab.In(f, virtualIP), servicePort), From: flow}, pod)
	}
}

func (n *node) wantAnswer(t *testing.T, from *lab.Host, p lab.Probe, pod *lab.Host) {
	t.Helper()
	p.Timeout = answerLimit
	eventually(t, fmt.Sprintf("%s asks %v over %v", from.Name, p.To, p.Protocol), func() error {
		if o := from.Probe(p); o.Result != lab.Answered || o.Server != pod.Name {
			return fmt.Errorf("%v, want %s", o, pod.Name)
		}
		return nil
	})
}

func (n *node) flush(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"iptables-", "ip6tables-"} {
		if _, err := n.Node.Run(tool+n.backend, "-t", "nat", "-F"); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *node) rules(t *testing.T) string {
	t.Helper()
	out, err := n.Node.Run("iptables-" + n.backend + "-save")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDaemonSetServesWithThePrivilegesThatItGives(t *testing.T) {
	for backend := range needs {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, backend)
			n.publish(t, n.Pods[1])

			n.init().start(t, n.Node).succeeds(t)
			if rules := n.rules(t); strings.Contains(rules, "SLUICE-") {
				t.Errorf("the init container left rules:\n%s", rules)
			}
			sluice := n.main().start(t, n.Node)
			sluice.awaitReady(t)
			n.wantServed(t, n.Pods[1])
			n.publish(t, n.Pods[2])
			n.wantServed(t, n.Pods[2])
			sluice.wantNoComplaints(t)

			n.flush(t)
			n.wantServed(t, n.Pods[2])
			sluice.stop(t)
			n.wantServed(t, n.Pods[2])
		})
	}
}

func TestEveryCapabilityIsNeeded(t *testing.T) {
	given := loadShipped(t).daemonSet.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add
	var needed []corev1.Capability
	for _, list := range needs {
		needed = append(needed, list...)
	}
	slices.Sort(needed)
	if diff := cmp.Diff(slices.Compact(needed), given); diff != "" {
		t.Errorf("capabilities (-needed +given):\n%s", diff)
	}
	for backend, capabilities := range needs {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, backend)
			n.publish(t, n.Pods[1])
			n.init().start(t, n.Node).succeeds(t)
			c := n.main()
			for i, missing := range capabilities {
				c.spec.SecurityContext.Capabilities.Add = slices.Delete(slices.Clone(capabilities), i, i+1)
				if text := c.start(t, n.Node).fails(t); !strings.Contains(text, "iptables") {
					t.Errorf("without %s sluice says:\n%s", missing, text)
				}
			}
			c.spec.SecurityContext.Capabilities.Add = capabilities
			c.start(t, n.Node).awaitReady(t)
			n.wantServed(t, n.Pods[1])
		})
	}
}

// The main container says which kernel parameter the init container should have set.
func TestMainContainerNeedsTheInitContainer(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nft")
	text := n.main().start(t, n.Node).fails(t)
	if !strings.Contains(text, "route_localnet from 0 to 1") {
		t.Errorf("sluice says:\n%s", text)
	}
}

// A parameter that somebody changed since the init container ran does not keep the main container from starting again.
func TestMainContainerStartsAfterOthersTunedTheKernel(t *testing.T) {
	t.Parallel()
	n := newNode(t, "nft")
	n.publish(t, n.Pods[1])
	n.init().start(t, n.Node).succeeds(t)
	if err := n.Node.Sysctl(map[string]string{"net/netfilter/nf_conntrack_tcp_timeout_established": "600"}); err != nil {
		t.Fatal(err)
	}
	n.main().start(t, n.Node).awaitReady(t)
	n.wantServed(t, n.Pods[1])
}

func TestCleanupRemovesEverythingWithThePrivilegesThatItHas(t *testing.T) {
	for backend := range needs {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, backend)
			n.publish(t, n.Pods[1])
			n.init().start(t, n.Node).succeeds(t)
			sluice := n.main().start(t, n.Node)
			sluice.awaitReady(t)
			sluice.Kill()
			if !strings.Contains(n.rules(t), "SLUICE-") {
				t.Fatal("no rules to clean up")
			}
			n.cleanup().start(t, n.Node).succeeds(t)
			if rules := n.rules(t); strings.Contains(rules, "SLUICE-") {
				t.Errorf("clean-up left:\n%s", rules)
			}
		})
	}
}
