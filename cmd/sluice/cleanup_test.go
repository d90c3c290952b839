package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/e2e/kernel/neighbour"
	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// heap is a sweeper without a kernel.
type heap struct {
	things []string
	stuck  []string // what remove does not remove
	err    error    // of remove
}

func (h *heap) sweeper(name string) sweeper {
	return sweeper{
		name:   name,
		traces: func(context.Context) ([]string, error) { return slices.Clone(h.things), nil },
		remove: func(context.Context) error {
			h.things = slices.DeleteFunc(h.things, func(x string) bool { return !slices.Contains(h.stuck, x) })
			return h.err
		},
	}
}

func TestSweepPrintsWhatItRemovesAndTellsWhatIsLeft(t *testing.T) {
	run := func(dryRun bool, heaps ...*heap) (string, error) {
		var out bytes.Buffer
		var all []sweeper
		for i, h := range heaps {
			all = append(all, h.sweeper(fmt.Sprint("heap ", i)))
		}
		err := sweep(t.Context(), &out, all, dryRun)
		return out.String(), err
	}
	full := func() []*heap { return []*heap{{things: []string{"a", "b", "b"}}, {}, {things: []string{"c"}}} }
	const all = "a\nb\nb\nc\n"

	heaps := full()
	if got, err := run(true, heaps...); got != all || err != nil || len(heaps[0].things) != 3 {
		t.Errorf("dry run: got %q, %v, and %q is left", got, err, heaps[0].things)
	}
	if got, err := run(false, heaps...); got != all || err != nil || len(heaps[0].things)+len(heaps[2].things) > 0 {
		t.Errorf("run: got %q, %v", got, err)
	}
	for _, dryRun := range []bool{true, false} {
		if got, err := run(dryRun, heaps...); got != "Nothing to remove\n" || err != nil {
			t.Errorf("again: got %q, %v", got, err)
		}
	}

	heaps = full()
	heaps[0].stuck = []string{"b"}
	if got, err := run(false, heaps...); got != "a\nc\n" || err == nil || err.Error() != "heap 0: still there, or there again: b" {
		t.Errorf("something is left: got %q, %v", got, err)
	}
	heaps = full()
	heaps[0].stuck, heaps[0].err = []string{"a"}, errors.New("busy")
	if got, err := run(false, heaps...); got != "b\nb\nc\n" || err == nil || err.Error() != "heap 0: busy" {
		t.Errorf("an error: got %q, %v", got, err)
	}
}

// What is removed while connections end is printed as well, and nothing is removed if they cannot be waited for.
func TestSweepWaitsBeforeItRemovesAnything(t *testing.T) {
	var out bytes.Buffer
	one, other := &heap{things: []string{"a"}}, &heap{things: []string{"b"}}
	sweepers := []sweeper{one.sweeper("one"), other.sweeper("other")}
	sweepers[0].first = func(context.Context) error { return errors.New("no") }
	if err := sweep(t.Context(), &out, sweepers, false); err == nil || out.Len() > 0 || len(one.things)+len(other.things) != 2 {
		t.Errorf("got %v and %q, and %q and %q are left", err, out.String(), one.things, other.things)
	}
	if err := sweep(t.Context(), &out, sweepers, true); err != nil || out.String() != "a\nb\n" {
		t.Errorf("a dry run: got %v and %q", err, out.String())
	}
	out.Reset()
	sweepers[0].first = func(context.Context) error {
		other.things = nil
		return nil
	}
	if err := sweep(t.Context(), &out, sweepers, false); err != nil || out.String() != "a\nb\n" || len(one.things) > 0 {
		t.Errorf("got %v and %q, and %q is left", err, out.String(), one.things)
	}
}

func TestCleanupAfterKubeProxyIsOfAllModes(t *testing.T) {
	o := cleanupOptions{kubeProxy: true, mode: "iptables"}
	if _, err := o.sweepers(t.Context()); err == nil || !strings.Contains(err.Error(), "--mode") {
		t.Errorf("got %v", err)
	}
}

// host is a lab's node with what others have in its kernel.
type host struct {
	*testing.T
	*lab.Lab
}

// sluice runs this program to its end.
func (h host) sluice(args ...string) (stdout string, err error) {
	h.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(h.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := h.Node.Start(cmd); err != nil {
		h.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errOut.String())
	}
	return out.String(), nil
}

func (h host) run(line string) string {
	h.Helper()
	out, err := h.Node.Run("sh", "-c", line)
	if err != nil {
		h.Fatal(err)
	}
	return out
}

// foreign loads what a cleaner must leave alone: of kubelet, of network policies, of firewalls.
func (h host) foreign() {
	for _, program := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
		h.run("f() { " + program + ` -w "$@"; }
for table in mangle nat filter; do f -t $table -N KUBE-KUBELET-CANARY; done
f -t mangle -N KUBE-IPTABLES-HINT
f -N KUBE-ROUTER-INPUT
f -A INPUT -m comment --comment "kube-router netpol" -j KUBE-ROUTER-INPUT
f -N KUBE-POD-FW-ABCDEFGHIJKLMNOP
f -A KUBE-ROUTER-INPUT -j KUBE-POD-FW-ABCDEFGHIJKLMNOP
f -t nat -N CNI-HOSTPORT-DNAT
f -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
f -A INPUT -p tcp --dport 22 -j ACCEPT`)
	}
	for _, program := range []string{"iptables-nft", "iptables-legacy"} { // kubelet has this in IPv4 alone
		h.run("f() { " + program + ` -w "$@"; }
f -N KUBE-FIREWALL
f -A KUBE-FIREWALL -m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
f -I OUTPUT -j KUBE-FIREWALL
f -I INPUT -j KUBE-FIREWALL`)
	}
	h.run("nft 'table inet firewall { chain input { type filter hook input priority 0; tcp dport 23 drop; }; }; table ip kube-proxy-metrics { }'")
}

var counters = regexp.MustCompile(`\[\d+:\d+\]|counter packets \d+ bytes \d+|# handle \d+`)

// state is all rules and chains, of everybody, but for tables without any.
func (h host) state() string {
	var all []string
	for _, program := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
		table := ""
		for line := range strings.Lines(h.run(program + "-save")) {
			line = strings.TrimSpace(counters.ReplaceAllString(line, ""))
			switch {
			case strings.HasPrefix(line, "*"):
				table = line
			case strings.HasPrefix(line, "-A"), strings.HasPrefix(line, ":") && strings.HasSuffix(line, " -"):
				all = append(all, program+table+" "+line)
			}
		}
	}
	for line := range strings.Lines(h.run("nft list tables")) {
		words := strings.Fields(line)
		if slices.Contains([]string{"filter", "nat", "mangle", "raw", "security"}, words[2]) {
			continue // those of iptables
		}
		all = append(all, counters.ReplaceAllString(h.run("nft -s list "+strings.TrimSpace(line)), ""))
	}
	return strings.Join(all, "\n")
}

// settled is the state once nobody changes it any more.
func (h host) settled() string {
	h.Helper()
	was := h.state()
	for now := h.state(); now != was; now = h.state() {
		was = now
	}
	return was
}

// serving starts Sluice in a mode and stops it when it serves: its rules stay.
func (h host) serving(args ...string) {
	h.Helper()
	dir := h.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(webManifest), 0o600); err != nil {
		h.Fatal(err)
	}
	log := &bytes.Buffer{}
	args = append([]string{asCommand + "=1", os.Args[0], "--manifest-dir", dir, "--hostname-override=node", "--conntrack-max-per-core=0"}, args...)
	p, err := process.Start(h.Node.Namespace, log, "env", args...)
	if err != nil {
		h.Fatal(err)
	}
	suite.Eventually(h, "Sluice serves", func() error {
		answer, err := suite.Get(h.Node, "http://127.0.0.1:10256/healthz")
		if err == nil && answer.Status != http.StatusOK {
			err = fmt.Errorf("status %d", answer.Status)
		}
		return err
	})
	if err := p.Stop(); err != nil {
		h.Fatalf("%v\n%s", err, log)
	}
}

// cluster is a node and Services of every kind, in both families.
func cluster() proxytest.State {
	text := func(addr string) []string { // in both families
		a := netip.MustParseAddr(addr)
		return []string{a.String(), lab.In(proxy.IPv6, a).String()}
	}
	service := func(name, addr string, f func(*corev1.ServiceSpec)) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "testing", Name: name}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ClusterIP: addr, ClusterIPs: text(addr),
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			Ports:      []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080}},
		}}
		f(&s.Spec)
		return s
	}
	web := service("web", "10.96.0.10", func(s *corev1.ServiceSpec) {
		s.ExternalIPs = text("203.0.113.10")
		timeout := int32(10800)
		s.SessionAffinity = corev1.ServiceAffinityClientIP
		s.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
		s.LoadBalancerSourceRanges = []string{"192.168.50.0/24"}
		s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.HealthCheckNodePort = 31080
	})
	for _, ip := range text("198.51.100.10") {
		web.Status.LoadBalancer.Ingress = append(web.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	empty := service("empty", "10.96.0.11", func(s *corev1.ServiceSpec) { s.Ports[0].NodePort = 30081 })
	name, protocol, port, ready, node := "", corev1.ProtocolTCP, int32(8080), true, "node"
	state := proxytest.State{Services: []*corev1.Service{web, empty}, Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}}
	for i, ip := range text(lab.NodeIP.String()) {
		state.Node.Status.Addresses = append(state.Node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
		state.Slices = append(state.Slices, &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "testing", Name: fmt.Sprint("web-", i), Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}[i],
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
			Endpoints:   []discoveryv1.Endpoint{{Addresses: text("10.1.0.10")[i : i+1], NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		})
	}
	return state
}

// kubeProxy starts one that serves the cluster in both families.
func (h host) kubeProxy(mode neighbour.Mode) *neighbour.KubeProxy {
	h.Helper()
	k := neighbour.Start(h, h.Lab, "../../e2e/bin/kube-proxy", mode)
	state := cluster()
	for _, f := range proxy.Families {
		state.Family = f
		if err := k.Serve(h.Context(), state); err != nil {
			h.Fatal(err)
		}
	}
	return k
}

// dryThenReal runs a clean-up twice, and wants both to print the same, and the first to change nothing.
func (h host) dryThenReal(args ...string) []string {
	h.Helper()
	before := h.state()
	planned, err := h.sluice(append(args, "--dry-run")...)
	if err != nil {
		h.Fatal(err)
	}
	if diff := cmp.Diff(before, h.state()); diff != "" {
		h.Errorf("%v: a dry run changes (-before +after):\n%s", args, diff)
	}
	removed, err := h.sluice(args...)
	if err != nil {
		h.Fatal(err)
	}
	if diff := cmp.Diff(planned, removed); diff != "" {
		h.Errorf("%v (-dry run +run):\n%s", args, diff)
	}
	for _, more := range [][]string{nil, {"--dry-run"}} {
		if out, err := h.sluice(append(args, more...)...); err != nil || out != "Nothing to remove\n" {
			h.Errorf("%v again: %q, %v", append(args, more...), out, err)
		}
	}
	return strings.Split(strings.TrimSpace(removed), "\n")
}

func (h host) wants(lines []string, want ...string) {
	h.Helper()
	for _, line := range want {
		if !slices.Contains(lines, line) {
			h.Errorf("%q is not said to be removed:\n%s", line, strings.Join(lines, "\n"))
		}
	}
}

// The real kube-proxy serves and ends, in each mode that the kernel has, beside Sluice. What it left is removed, and nothing else.
func TestKernelCleanupRemovesWhatKubeProxyLeftAndNothingElse(t *testing.T) {
	for _, test := range []struct {
		mode   neighbour.Mode
		sluice []string // what serves beside it
		want   []string
		own    []string // of Sluice, removed in the end
	}{
		{
			neighbour.IPTables, []string{"--mode=iptables", "--iptables-backend=nft"},
			[]string{
				"iptables-nft, table nat: chain KUBE-SERVICES", "ip6tables-nft, table nat: chain KUBE-POSTROUTING",
				"iptables-nft, table nat: rule -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING",
				"ip6tables-nft, table filter: chain KUBE-FIREWALL", "iptables-nft, table mangle: chain KUBE-PROXY-CANARY",
			},
			[]string{"iptables-nft, table nat: chain SLUICE-SERVICES", "iptables-nft, table nat: chain KUBE-MARK-MASQ"},
		},
		{
			neighbour.IPTablesLegacy, []string{"--mode=nftables"},
			[]string{
				"iptables-legacy, table nat: chain KUBE-SERVICES", "ip6tables-legacy, table nat: chain KUBE-MARK-MASQ",
				"ip6tables-legacy, table filter: chain KUBE-FIREWALL", "iptables-legacy, table mangle: chain KUBE-PROXY-CANARY",
			},
			[]string{"nftables: table ip sluice", "nftables: table ip6 sluice"},
		},
		{
			neighbour.NFTables, []string{"--mode=iptables", "--iptables-backend=legacy"},
			[]string{"nftables: table ip kube-proxy", "nftables: table ip6 kube-proxy"},
			[]string{"iptables-legacy, table nat: chain SLUICE-SERVICES"},
		},
	} {
		t.Run(string(test.mode), func(t *testing.T) {
			t.Parallel()
			h := host{t, lab.Start(t, lab.Config{})}
			h.foreign()
			pristine := h.state()
			h.serving(test.sluice...)
			before := h.state()
			if before == pristine {
				t.Fatal("Sluice has no rules")
			}
			k := h.kubeProxy(test.mode)
			k.Freeze() // it writes its rules anew now and then, in another order
			with := h.settled()
			for _, more := range [][]string{nil, {"--dry-run"}} {
				if out, err := h.sluice(append([]string{"cleanup", "--kube-proxy"}, more...)...); err == nil || !strings.Contains(err.Error(), "kube-proxy runs on this node") {
					t.Errorf("while it runs: got %q, %v", out, err)
				}
			}
			if diff := cmp.Diff(with, h.state()); diff != "" {
				t.Errorf("a refused clean-up changes (-before +after):\n%s", diff)
			}
			k.Stop()
			h.wants(h.dryThenReal("cleanup", "--kube-proxy"), test.want...)
			if diff := cmp.Diff(before, h.state()); diff != "" {
				t.Errorf("kube-proxy came and went (-before +after):\n%s", diff)
			}
			h.wants(h.dryThenReal("cleanup"), test.own...)
			if diff := cmp.Diff(pristine, h.state()); diff != "" {
				t.Errorf("Sluice came and went (-before +after):\n%s", diff)
			}
		})
	}
}
