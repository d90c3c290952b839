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

// way is a way to run Sluice, and the capabilities that its main container cannot do without.
type way struct {
	mode, backend string
	needs         []corev1.Capability
}

var ways = []way{
	{"iptables", "nft", []corev1.Capability{"NET_ADMIN"}},
	{"iptables", "legacy", []corev1.Capability{"NET_ADMIN", "NET_RAW"}},
	{"nftables", "nft", []corev1.Capability{"NET_ADMIN"}},
}

func (w way) String() string { return w.mode + "-" + w.backend }

// elsewhere are those that the kernels of build machines do not have.
var elsewhere = []way{{"ipvs", "nft", []corev1.Capability{"NET_ADMIN"}}}

// capabilitiesOf are what a mode needs, whatever the backend.
func capabilitiesOf(mode string) []corev1.Capability {
	var all []corev1.Capability
	for _, w := range slices.Concat(ways, elsewhere) {
		if w.mode == mode {
			all = append(all, w.needs...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// node is a machine on which the containers of the DaemonSet run, with Services from a directory instead of a cluster.
type node struct {
	*lab.Lab
	shipped
	way
	dir string // of the manifests
}

func newNode(t *testing.T, w way) *node {
	n := &node{Lab: lab.Start(t, lab.Config{}), shipped: loadShipped(t, "overlays/"+w.mode), way: w, dir: t.TempDir()}
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
func (n *node) init(t *testing.T) container {
	t.Helper()
	return n.container(t, n.daemonSet.Spec.Template.Spec.InitContainers[0], "--conntrack-max-per-core=0", allNodePorts)
}

// allNodePorts is for both containers, as all flags are: a mode named nftables serves NodePorts at the node's own
// addresses alone, which only a cluster tells.
const allNodePorts = "--nodeport-addresses=all"

// main is the main container, with Services from files.
func (n *node) main(t *testing.T) container {
	t.Helper()
	spec := n.daemonSet.Spec.Template.Spec.Containers[0].DeepCopy()
	spec.Args = slices.DeleteFunc(spec.Args, func(arg string) bool { return strings.HasPrefix(arg, "--kubeconfig=") })
	return n.container(t, *spec, "--manifest-dir="+n.dir, "--iptables-min-sync-period=100ms", allNodePorts)
}

func (n *node) container(t *testing.T, spec corev1.Container, args ...string) container {
	t.Helper()
	env := n.env(t, spec)
	env["CLUSTER_CIDR"] = fmt.Sprintf("%v,%v", lab.ClusterCIDR, lab.PrefixIn(proxy.IPv6, lab.ClusterCIDR))
	if n.mode == "iptables" {
		args = append(args, "--iptables-backend="+n.backend)
	}
	return container{spec: spec, env: env, args: args}
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

// flush does what a careless firewall does.
func (n *node) flush(t *testing.T) {
	t.Helper()
	commands := [][]string{{"nft", "flush", "ruleset"}}
	switch {
	case n.mode == "ipvs":
		commands = append(commands, []string{"ipvsadm", "-C"})
	case n.backend == "legacy":
		commands = [][]string{{"iptables-legacy", "-t", "nat", "-F"}, {"ip6tables-legacy", "-t", "nat", "-F"}}
	}
	for _, command := range commands {
		if _, err := n.Node.Run(command[0], command[1:]...); err != nil {
			t.Fatal(err)
		}
	}
}

// rules are those where Sluice writes.
func (n *node) rules(t *testing.T) string {
	t.Helper()
	command := []string{"nft", "list", "ruleset"}
	if n.backend == "legacy" {
		command = []string{"iptables-legacy-save"}
	}
	out, err := n.Node.Run(command[0], command[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eachWay runs a test in each of some ways.
func eachWay(t *testing.T, ways []way, test func(t *testing.T, n *node)) {
	for _, w := range ways {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, w)
			n.publish(t, n.Pods[1])
			test(t, n)
		})
	}
}

func TestDaemonSetServesWithThePrivilegesThatItGives(t *testing.T) {
	eachWay(t, ways, servesWithItsPrivileges)
}

func servesWithItsPrivileges(t *testing.T, n *node) {
	n.init(t).start(t, n.Node).succeeds(t)
	if rules := n.rules(t); hasRulesOfSluice(rules) {
		t.Errorf("the init container left rules:\n%s", rules)
	}
	sluice := n.main(t).start(t, n.Node)
	sluice.awaitReady(t)
	n.wantServed(t, n.Pods[1])
	n.publish(t, n.Pods[2])
	n.wantServed(t, n.Pods[2])
	sluice.wantNoComplaints(t)

	n.flush(t)
	n.wantServed(t, n.Pods[2])
	sluice.stop(t)
	n.wantServed(t, n.Pods[2])
}

func TestEveryCapabilityIsNeeded(t *testing.T) { eachWay(t, ways, needsItsCapabilities) }

func needsItsCapabilities(t *testing.T, n *node) {
	n.init(t).start(t, n.Node).succeeds(t)
	c := n.main(t)
	if diff := cmp.Diff(capabilitiesOf(n.mode), c.spec.SecurityContext.Capabilities.Add); diff != "" {
		t.Errorf("capabilities (-needed +given):\n%s", diff)
	}
	for i, missing := range n.needs {
		c.spec.SecurityContext.Capabilities.Add = slices.Delete(slices.Clone(n.needs), i, i+1)
		if text := c.start(t, n.Node).fails(t); !strings.Contains(text, "mode "+n.mode+" cannot work on this node") {
			t.Errorf("without %s sluice says:\n%s", missing, text)
		}
	}
	c.spec.SecurityContext.Capabilities.Add = n.needs
	c.start(t, n.Node).awaitReady(t)
	n.wantServed(t, n.Pods[1])
}

// Where the mode is not named, every mode must be possible.
func TestChoosingNeedsWhatEachModeNeeds(t *testing.T) {
	var needed []corev1.Capability
	for _, w := range ways {
		needed = append(needed, w.needs...)
	}
	slices.Sort(needed)
	needed = slices.Compact(needed)
	for _, overlay := range []string{fresh, kubeadm} {
		given := mainContainer(t, kustomized(t, overlay)).SecurityContext.Capabilities.Add
		if diff := cmp.Diff(needed, given); diff != "" {
			t.Errorf("capabilities of %s (-needed +given):\n%s", overlay, diff)
		}
	}
}

// The main container says which kernel parameter the init container should have set.
func TestMainContainerNeedsTheInitContainer(t *testing.T) {
	t.Parallel()
	n := newNode(t, ways[0])
	text := n.main(t).start(t, n.Node).fails(t)
	if !strings.Contains(text, "route_localnet from 0 to 1") {
		t.Errorf("sluice says:\n%s", text)
	}
}

// A parameter that somebody changed since the init container ran does not keep the main container from starting again.
func TestMainContainerStartsAfterOthersTunedTheKernel(t *testing.T) {
	t.Parallel()
	n := newNode(t, ways[0])
	n.publish(t, n.Pods[1])
	n.init(t).start(t, n.Node).succeeds(t)
	if err := n.Node.Sysctl(map[string]string{"net/netfilter/nf_conntrack_tcp_timeout_established": "600"}); err != nil {
		t.Fatal(err)
	}
	n.main(t).start(t, n.Node).awaitReady(t)
	n.wantServed(t, n.Pods[1])
}

func TestCleanupRemovesEverythingWithThePrivilegesThatItHas(t *testing.T) {
	eachWay(t, ways, cleansUpWithItsPrivileges)
}

func cleansUpWithItsPrivileges(t *testing.T, n *node) {
	n.init(t).start(t, n.Node).succeeds(t)
	sluice := n.main(t).start(t, n.Node)
	sluice.awaitReady(t)
	sluice.Kill()
	if !hasRulesOfSluice(n.rules(t)) {
		t.Fatal("no rules to clean up")
	}
	n.cleanup().start(t, n.Node).succeeds(t)
	if rules := n.rules(t); hasRulesOfSluice(rules) {
		t.Errorf("clean-up left:\n%s", rules)
	}
	after := n.cleanup().with("--dry-run").start(t, n.Node)
	after.succeeds(t)
	if said := after.log(t); said != "Nothing to remove\n" {
		t.Errorf("after the clean-up, a dry run says:\n%s", said)
	}
}
