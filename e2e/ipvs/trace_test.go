package ipvs_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// TestKernelTraceShowsTheGlueAndTheConnection follows a client's packets through the rules that lead to IPVS, and finds what IPVS
// made of them; and explain knows the backend that a client has.
func TestKernelTraceShowsTheGlueAndTheConnection(t *testing.T) {
	if *sluice == "" {
		t.Fatal("-sluice does not say which program to test")
	}
	l := lab.Start(t, lab.Config{Pods: 1})
	s := &site{Lab: l, t: t, family: proxy.IPv4}
	s.must(l.Pods[0].Serve(proxy.TCP, 8080))
	dir := t.TempDir()
	text := fmt.Sprintf(strings.Replace(objects, "clusterIP: 10.96.0.10", "clusterIP: 10.96.0.10\n  sessionAffinity: ClientIP", 1), l.Pods[0].Addr(proxy.IPv4), "here")
	s.must(os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(text), 0o600))
	said, traced, explained := &log{}, &log{}, &log{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%v\n%v\n%v", said, traced, explained)
		}
	})
	_, err := process.Start(l.Node.Namespace, said, *sluice, "--mode=ipvs", "--manifest-dir", dir, "--hostname-override=here",
		"--cluster-cidr", lab.ClusterCIDR.String(), "--service-cidrs", lab.ServiceCIDR.String(), "--conntrack-max-per-core=0", "-v=2")
	s.must(err)
	to := netip.AddrPortFrom(vip, 80)
	probe := lab.Probe{To: to, Protocol: proxy.TCP, Timeout: patience}
	s.eventually("the Service", func() bool {
		return strings.Contains(said.String(), `"Applied snapshot" family="IPv4"`) && l.Client.Probe(probe).Result == lab.Answered
	})
	client := l.Client.Addrs(proxy.IPv4)[1] // which has sent nothing yet
	probe.From = netip.AddrPortFrom(client, 0)
	trace, err := process.Start(l.Node.Namespace, traced, *sluice, "trace", "--from="+client.String(), "--to="+to.String(), "--packets=2", "--for=1m")
	s.must(err)
	s.eventually("the trace", func() bool { return strings.Contains(traced.String(), "are followed") })
	conn, outcome := l.Client.Connect(probe)
	if conn == nil {
		t.Fatal(outcome)
	}
	defer conn.Close()
	s.must(trace.Err())
	for _, want := range []string{
		client.String() + ":", "> 10.96.0.10:80 (testing/web) tcp syn, in ", "ip sluice-ipvs ",
		"conntrack  to 10.1.0.10:8080 (endpoint of testing/web)", "ipvs       to 10.1.0.10:8080 (endpoint of testing/web)",
	} {
		if !strings.Contains(traced.String(), want) {
			t.Errorf("the trace has no %q", want)
		}
	}
	explain, err := process.Start(l.Node.Namespace, explained, *sluice, "explain", "--from="+client.String(), "--to="+to.String())
	s.must(err)
	s.must(explain.Err())
	for _, want := range []string{"kernel      agrees, in mode ipvs", "; this one has 10.1.0.10:8080", "virtual server 10.96.0.10:80/tcp"} {
		if !strings.Contains(explained.String(), want) {
			t.Errorf("the explanation has no %q", want)
		}
	}
	if tables := s.run("nft list tables"); strings.Contains(tables, "sluice-trace") {
		t.Errorf("left behind:\n%s", tables)
	}
}
