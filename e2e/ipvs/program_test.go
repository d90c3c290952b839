package ipvs_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

var sluice = flag.String("sluice", "", "the program to test")

// log keeps what the program says.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

const objects = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: testing}
spec:
  clusterIP: 10.96.0.10
  externalTrafficPolicy: Local
  type: NodePort
  ports: [{port: 80, nodePort: 30080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: testing, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [%v], nodeName: %s}]
`

// repairs is how often the program has repaired what somebody else changed.
func (s *site) repairs() int {
	s.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: s.Node.DialContext}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://127.0.0.1:10249/metrics")
	s.must(err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	s.must(err)
	n := 0
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, `sluice_repairs_total{ip_family="IPv4",reason="changed"} `); ok {
			n, err = strconv.Atoi(strings.TrimSpace(value))
			s.must(err)
		}
	}
	return n
}

// TestKernelProgramServes runs the program itself: it serves, follows changes, repairs, is killed, goes on, and cleans up.
func TestKernelProgramServes(t *testing.T) {
	if *sluice == "" {
		t.Fatal("-sluice does not say which program to test")
	}
	l := lab.Start(t, lab.Config{Pods: 2})
	s := &site{Lab: l, t: t, family: proxy.IPv4}
	for _, pod := range l.Pods {
		s.must(pod.Serve(proxy.TCP, 8080))
	}
	dir := t.TempDir()
	serve := func(pod *lab.Host) {
		t.Helper()
		text := fmt.Sprintf(objects, pod.Addr(proxy.IPv4), "here")
		s.must(os.WriteFile(filepath.Join(dir, "new"), []byte(text), 0o600))
		s.must(os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "web.yaml")))
	}
	said := &log{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(said)
			_ = l.Node.Do(func() error { t.Log(dump(proxy.IPv4)); return nil })
		}
	})
	start := func() *process.Process {
		t.Helper()
		p, err := process.Start(l.Node.Namespace, said, *sluice, "--mode=ipvs", "--manifest-dir", dir, "--hostname-override=here",
			"--cluster-cidr", lab.ClusterCIDR.String(), "--service-cidrs", lab.ServiceCIDR.String(), "--conntrack-max-per-core=0")
		s.must(err)
		return p
	}
	answers := func(what string, pod *lab.Host) {
		t.Helper()
		for _, to := range []netip.AddrPort{s.in(vip, 80), netip.AddrPortFrom(lab.NodeIP, 30080)} {
			s.eventually(what, func() bool {
				o := l.Client.Probe(lab.Probe{To: to, Protocol: proxy.TCP, Timeout: moment})
				return o.Result == lab.Answered && o.Server == pod.Name
			})
		}
	}
	serve(l.Pods[0])
	p := start()
	answers("the start", l.Pods[0])
	serve(l.Pods[1])
	answers("a change", l.Pods[1])
	s.run("ipvsadm -C")
	answers("a repair", l.Pods[1])
	s.run("ipvsadm -D -t " + s.text(vip, 80))
	answers("a repair of one virtual server", l.Pods[1])
	if what := "virtual server 10.96.0.10:80/tcp of testing/web is gone"; !strings.Contains(said.String(), what) {
		t.Errorf("the log does not say %q", what)
	}
	const parameter = "/proc/sys/net/ipv4/vs/expire_nodest_conn"
	s.run("sysctl -qw net.ipv4.vs.expire_nodest_conn=0")
	s.eventually("a repair of a parameter", func() bool { return s.run("cat "+parameter) == "1\n" })
	if what := "kernel parameter " + parameter + " is 0 instead of 1"; !strings.Contains(said.String(), what) {
		t.Errorf("the log does not say %q", what)
	}
	if n := s.repairs(); n < 3 {
		t.Errorf("%d repairs are counted", n)
	}
	answersLocalhost := func(pod *lab.Host) {
		t.Helper()
		s.eventually("a NodePort on localhost", func() bool {
			o := l.Node.Probe(lab.Probe{To: netip.MustParseAddrPort("127.0.0.1:30080"), Protocol: proxy.TCP, Timeout: moment})
			return o.Result == lab.Answered && o.Server == pod.Name
		})
	}
	answersLocalhost(l.Pods[1])
	if s.run("cat /proc/sys/net/ipv4/conf/all/route_localnet") != "0\n" {
		t.Error("loopback addresses are routed")
	}
	s.askProgram(l.Pods[1])
	p.Kill()
	answers("a killed process", l.Pods[1])
	serve(l.Pods[0])
	p = start()
	answers("a successor", l.Pods[0])
	answersLocalhost(l.Pods[0])
	s.must(p.Stop())
	s.run(*sluice + " cleanup --mode=ipvs")
	left := s.run("nft list ruleset") + s.run("ip rule") + s.run("ip route show table all") + s.servers()
	for _, ours := range []string{"sluice", "0x2000", "2133", "-A "} {
		if strings.Contains(left, ours) {
			t.Errorf("%q is left:\n%s", ours, left)
		}
	}
	if was := "0"; s.run("cat /proc/sys/net/ipv4/vs/conntrack") != was+"\n" {
		t.Error("net.ipv4.vs.conntrack is not what it was")
	}
}

// askProgram asks the program about a Service with one backend, and a bundle that it makes.
func (s *site) askProgram(backend *lab.Host) {
	s.t.Helper()
	if found := s.run(*sluice + " diff"); found != "" {
		s.t.Errorf("differences: %s", found)
	}
	// The exit code is 2 if the kernel has anything else.
	if said := s.run(*sluice + " explain --from=outside --to=" + s.text(vip, 80)); !strings.Contains(said, s.text(backend.Addr(proxy.IPv4), 8080)) {
		s.t.Errorf("explain does not name %s:\n%s", backend.Name, said)
	}
	file := filepath.Join(s.t.TempDir(), "asked.tar.gz")
	s.run(*sluice + " bundle " + file)
	if found := s.run(*sluice + " diff --bundle " + file); found != "" {
		s.t.Errorf("differences in the bundle: %s", found)
	}
	if says, said := s.run(*sluice+" explain --intent-only testing/web"), s.run(*sluice+" explain testing/web --bundle "+file); says != said {
		s.t.Errorf("the program says\n%s\nthe bundle says\n%s", says, said)
	}
	listed := s.run("tar -xzOf " + file + " --wildcards */kernel-ipvs.txt")
	for _, what := range []string{"virtual server " + s.text(vip, 80) + "/tcp, scheduler rr\n  " + s.text(backend.Addr(proxy.IPv4), 8080) + ", weight 1, ", "table ip sluice", "ip_vs_stats"} {
		if !strings.Contains(listed, what) {
			s.t.Errorf("the bundle's list of the kernel has no %q:\n%s", what, listed)
		}
	}
}
