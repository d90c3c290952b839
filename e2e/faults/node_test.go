package faults

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// locked: another program holds the lock of iptables for longer than Sluice waits for it. What is served stays served, and
// changes come late.
func locked(s *story) {
	lock, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		s.Fatal(err)
	}
	failures := s.metric(s.T, "sluice_sync_failures_total")
	s.endpoints(s.T, s.moving, targetPort, s.remote())
	eventually(s.T, "both families give up waiting", func() error {
		if n := s.metric(s.T, "sluice_sync_failures_total") - failures; n < 2 {
			return fmt.Errorf("%v failures", n)
		}
		return nil
	})
	s.load.pass(2)
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		s.Fatal(err)
	}
	s.awaitMoved(s.T, s.remote())
	if n := s.metric(s.T, "sluice_service_ports_set_aside"); n != 0 {
		s.Errorf("%v ServicePorts are set aside", n)
	}
	s.moves(s.T, s.local())
}

// nodeEdited: the facts of the node change while it runs.
func nodeEdited(s *story) {
	flags := []string{"--detect-local-mode", "NodeCIDR", "--nodeport-addresses", "primary", "--cluster-cidr", ""}
	s.stop(s.T)
	s.start(s.T, flags...)
	before := s.rules(s.T)
	s.load.pass()

	// A zone without hints changes nothing.
	node := s.getNode()
	node.Labels[corev1.LabelTopologyZone] = "zone-b"
	if _, err := s.api.CoreV1().Nodes().Update(s.Context(), node, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.load.pass()

	// The range of its pods comes with another Node object: nothing may change it in place.
	narrow := netip.PrefixFrom(lab.NodeCIDR.Addr(), lab.NodeCIDR.Bits()+1)
	s.replaceNode(s.node(lab.NodeIP, narrow))
	s.awaitRule(narrow.String())
	s.load.pass()

	// NodePorts follow the node's address, and nothing else is disturbed.
	over := s.load.excuse(nodePort)
	s.setAddress(lab.NodeIP2)
	s.awaitNodePorts(lab.NodeIP2)
	s.setAddress(lab.NodeIP)
	s.awaitNodePorts(lab.NodeIP)
	s.replaceNode(s.node(lab.NodeIP, lab.NodeCIDR))
	s.awaitRules(s.T, before)
	over()
	s.load.pass()

	s.stop(s.T)
	s.start(s.T)
}

func (s *story) getNode() *corev1.Node {
	s.Helper()
	node, err := s.api.CoreV1().Nodes().Get(s.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return node
}

func (s *story) replaceNode(node *corev1.Node) {
	s.Helper()
	if err := s.api.CoreV1().Nodes().Delete(s.Context(), nodeName, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
	s.plane.CreateNode(s.T, node)
}

func (s *story) setAddress(ip netip.Addr) {
	s.Helper()
	node := s.getNode()
	node.Status.Addresses = s.node(ip, lab.NodeCIDR).Status.Addresses
	if _, err := s.api.CoreV1().Nodes().UpdateStatus(s.Context(), node, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
}

func (s *story) awaitRule(text string) {
	s.Helper()
	eventually(s.T, fmt.Sprintf("a rule with %q", text), func() error {
		if !strings.Contains(s.rules(s.T), text) {
			return fmt.Errorf("there is none")
		}
		return nil
	})
}

// awaitNodePorts waits until they are served at one of the node's addresses.
func (s *story) awaitNodePorts(ip netip.Addr) {
	s.Helper()
	for _, f := range proxy.Families {
		to := netip.AddrPortFrom(lab.In(f, ip), s.nodePort(f, proxy.TCP).Port())
		eventually(s.T, fmt.Sprintf("%v is served", to), func() error {
			if o := s.Client.Probe(lab.Probe{To: to, Protocol: proxy.TCP, Timeout: answerLimit}); o.Result != lab.Answered {
				return fmt.Errorf("%v", o)
			}
			return nil
		})
	}
}

// sysctlsReadOnly: in most containers /proc/sys cannot be written. That is well if nothing needs to be.
func sysctlsReadOnly(s *story) {
	inContainer := append([]string{"unshare", "--mount", "sh", "-c",
		`mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec "$@"`, "sh"}, s.command()...)
	s.stop(s.T)
	s.launch(s.T, inContainer...)
	s.awaitHealthy(s.T)
	s.load.pass()
	s.stop(s.T)

	const setting = "net/netfilter/nf_conntrack_tcp_timeout_close_wait"
	if err := s.Node.Sysctl(map[string]string{setting: "61"}); err != nil {
		s.Fatal(err)
	}
	s.launch(s.T, inContainer...)
	if code := s.sluice.ExitCode(); code == 0 {
		s.Error("sluice could not set what it needs, and ended well")
	}
	for _, want := range []string{setting, "from 61 to 3600", "read-only file system"} {
		if !strings.Contains(s.said(s.T), want) {
			s.Errorf("nothing is said of %q:\n%s", want, s.said(s.T))
		}
	}
	s.load.pass()
	s.start(s.T)
}

// rebooted: the kernel is empty, and the API server answers at its own address only.
func rebooted(s *story) {
	over, overCut := s.load.excuse(fresh, nodePort, sticky, stream), s.load.cut()
	s.sluice.Kill()
	s.kernel.empty(s)
	if err := s.Node.FlushFlows(); err != nil {
		s.Fatal(err)
	}
	s.start(s.T)
	s.awaitRules(s.T, s.before)
	s.load.forget()
	over()
	for _, client := range []*lab.Host{s.visitor(), s.Node, s.Client} {
		conn, err := client.DialContext(s.Context(), "tcp", "10.96.0.1:443")
		if err != nil {
			s.Fatalf("API server's ClusterIP from %s: %v", client.Name, err)
		}
		_ = conn.Close()
	}
	overCut()
}
