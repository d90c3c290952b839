package ipvs_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sluice-proxy/sluice/e2e/kernel/neighbour"
	"github.com/sluice-proxy/sluice/e2e/load"
	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// service is one of IPv4.
func service(name string, addr netip.Addr, nodePort int32) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "testing", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort, ClusterIP: addr.String(), ClusterIPs: []string{addr.String()}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80, NodePort: nodePort}},
		},
	}
}

func endpoints(name string, pod *lab.Host) *discoveryv1.EndpointSlice {
	none, protocol, port, node := "", corev1.ProtocolTCP, int32(8080), "node"
	return &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Namespace: "testing", Name: name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &none, Protocol: &protocol, Port: &port}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{pod.Addr(proxy.IPv4).String()}, NodeName: &node}},
	}
}

// publish writes objects for Sluice.
func publish(s *site, dir string, objects ...any) {
	s.t.Helper()
	var text strings.Builder
	for _, o := range objects {
		part, err := yaml.Marshal(o)
		s.must(err)
		text.WriteString("---\n" + string(part))
	}
	s.must(os.WriteFile(filepath.Join(dir, "new"), []byte(text.String()), 0o600))
	s.must(os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "all.yaml")))
}

// TestKernelTakesOverFromKubeProxy starts Sluice where the real kube-proxy has served by IPVS and ended, under load, and removes
// what kube-proxy has left: Sluice serves on, connections go on, and somebody else's things stay.
func TestKernelTakesOverFromKubeProxy(t *testing.T) {
	if *sluice == "" {
		t.Fatal("-sluice does not say which program to test")
	}
	l := lab.Start(t, lab.Config{Pods: 2})
	s := &site{Lab: l, t: t, family: proxy.IPv4}
	for _, pod := range l.Pods {
		s.must(pod.Serve(proxy.TCP, 8080))
	}
	web, empty := service("web", vip, 30080), service("empty", netip.MustParseAddr("10.96.0.11"), 30081)
	web.Spec.ExternalIPs = []string{external.String()}
	old := service("old", netip.MustParseAddr("10.96.0.12"), 30082) // deleted while nobody looked
	kubeProxy := neighbour.Start(t, l, "../bin/kube-proxy", neighbour.IPVS)
	s.must(kubeProxy.Serve(t.Context(), proxytest.State{
		Family: proxy.IPv4,
		Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: lab.NodeIP.String()}},
		}},
		Services: []*corev1.Service{web, empty, old},
		Slices:   []*discoveryv1.EndpointSlice{endpoints("web", l.Pods[1]), endpoints("old", l.Pods[1])},
	}))

	// Its virtual servers come first. What is not masqueraded yet may take the ports of what is.
	s.eventually("kube-proxy masquerades", func() bool {
		rules, sets := s.run("iptables-nft-save -t nat"), s.run("ipset list")
		return strings.Contains(rules, "-A KUBE-POSTROUTING -m comment") && strings.Contains(rules, "KUBE-NODE-PORT-TCP") &&
			strings.Contains(sets, external.String()+",tcp:80") && strings.Contains(sets, "\n30080")
	})
	// No client uses a port for two frontends at a time: IPVS may mix up their answers.
	byVIP := lab.Probe{Protocol: proxy.TCP, Timeout: patience, To: s.in(vip, 80), From: netip.AddrPortFrom(proxy.IPv4.Any(), 0)}
	byNodePort, byExternal := byVIP, byVIP
	byNodePort.To, byExternal.To = netip.AddrPortFrom(lab.NodeIP, 30080), s.in(external, 80)
	long, about := map[*lab.Conn]lab.Outcome{}, map[*lab.Conn]string{}
	var loads []*load.Load
	for _, x := range []struct {
		from *lab.Host
		to   lab.Probe
	}{{l.Pods[0], byVIP}, {l.Client, byNodePort}, {l.Client, byExternal}} {
		conn, first := x.from.Connect(x.to)
		if conn == nil {
			t.Fatalf("%s to %v: %v", x.from.Name, x.to.To, first)
		}
		t.Cleanup(conn.Close)
		long[conn], about[conn] = first, fmt.Sprintf("%s to %v", x.from.Name, x.to.To)
		loads = append(loads, load.StartOf(x.from, x.to, 1))
	}
	pass := func(what string) {
		t.Helper()
		for _, x := range loads {
			goal := x.Total() + 20
			s.eventually(what, func() bool { return x.Total() >= goal })
		}
		for conn, first := range long {
			if now := conn.Again(patience); now != first {
				t.Errorf("%s: the connection %s has %v, had %v", what, about[conn], now, first)
			}
		}
	}
	pass("kube-proxy serves")
	kubeProxy.Stop()
	const somebodys = "-A -t 198.51.100.77:80 -s rr"
	s.run("ipvsadm " + somebodys)
	s.run("ipset create SOMEBODYS hash:ip")
	s.run("iptables-nft -A INPUT -m set --match-set SOMEBODYS src -j ACCEPT")

	dir := t.TempDir()
	publish(s, dir, web, empty, endpoints("web", l.Pods[1]))
	said := &log{}
	p, err := process.Start(l.Node.Namespace, said, *sluice, "--mode=ipvs", "--manifest-dir", dir, "--hostname-override=node",
		"--cluster-cidr", lab.ClusterCIDR.String(), "--service-cidrs", lab.ServiceCIDR.String(), "--conntrack-max-per-core=0")
	s.must(err)
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Log(said)
			_ = l.Node.Do(func() error { t.Log(dump(proxy.IPv4)); return nil })
		}
	})
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: l.Node.DialContext}}
	s.eventually("Sluice serves", func() bool {
		answer, err := client.Get("http://127.0.0.1:10256/healthz")
		return err == nil && answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	})
	pass("Sluice serves beside what kube-proxy left")
	s.reach(l.Node, s.in(vip, 80), proxy.TCP, l.Pods[1])

	state := func() string {
		return s.run("ipvsadm -Sn") + s.run("ip -o link show type dummy") + s.run("iptables-nft-save") + s.run("ip6tables-nft-save") + s.run("ipset list -name")
	}
	before := state()
	planned := s.run(*sluice + " cleanup --kube-proxy --dry-run")
	for _, line := range []string{"ipvs: virtual server 10.96.0.12:80/tcp", "interface kube-ipvs0", "ipset KUBE-CLUSTER-IP",
		fmt.Sprintf("ipvs: virtual server %v:30082/tcp", lab.NodeIP), "iptables-nft, table nat: chain KUBE-SERVICES"} {
		if !slices.Contains(strings.Split(planned, "\n"), line) {
			t.Errorf("no %q in what is to be removed:\n%s", line, planned)
		}
	}
	for _, line := range strings.Split(planned, "\n") {
		if strings.Contains(line, s.text(vip, 80)) || strings.Contains(line, ":30080/") || strings.Contains(line, "198.51.100") {
			t.Errorf("Sluice's, or somebody else's, is to be removed: %s", line)
		}
	}
	if counts(state()) != counts(before) {
		t.Errorf("a dry run changed\n%s\nto\n%s", before, state())
	}
	if removed := s.run(*sluice + " cleanup --kube-proxy"); removed != planned {
		t.Errorf("removed:\n%s\nbut a dry run had said:\n%s", removed, planned)
	}
	after := state()
	for _, theirs := range []string{"KUBE", "kube-ipvs0", "10.96.0.12", "30082"} {
		if strings.Contains(after, theirs) {
			t.Errorf("%s is left:\n%s", theirs, after)
		}
	}
	for _, somebodys := range []string{somebodys, "SOMEBODYS"} {
		if !strings.Contains(after, somebodys) {
			t.Errorf("%s is gone:\n%s", somebodys, after)
		}
	}
	if again := s.run(*sluice + " cleanup --kube-proxy --dry-run"); again != "Nothing to remove\n" {
		t.Errorf("again: %s", again)
	}
	pass("Sluice serves alone")
	s.reach(l.Node, s.in(vip, 80), proxy.TCP, l.Pods[1])
	publish(s, dir, web, empty, endpoints("web", l.Pods[0]))
	for i, x := range loads { // the first comes from the new backend itself
		s.eventually("a change arrives", func() bool { return x.Absent(l.Pods[1].Name) >= 20 })
		if c := x.Stop(); len(c.Failures) > 0 {
			t.Errorf("load %d: connections were lost: %v", i, c)
		}
	}
	s.must(p.Stop())
	planned = s.run(*sluice + " cleanup --dry-run")
	if removed := s.run(*sluice + " cleanup"); removed != planned || !strings.Contains(removed, "ipvs: virtual server 10.96.0.10:80/tcp") {
		t.Errorf("removed:\n%s\nbut a dry run had said:\n%s", removed, planned)
	}
	if left := s.servers(); strings.TrimSpace(left) != somebodys {
		t.Errorf("virtual servers that are left:\n%s", left)
	}
}

// counts leaves out of a state what changes by itself.
func counts(state string) string {
	var lines []string
	for line := range strings.Lines(state) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
