package faults

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// kubeProxy is the real one in a mode. It uses the iptables programs of a backend.
type kubeProxy struct{ mode, backend string }

var kubeProxies = map[string]kubeProxy{
	"kube-proxy-iptables-nft":    {"iptables", "nft"},
	"kube-proxy-iptables-legacy": {"iptables", "legacy"},
	"kube-proxy-nftables":        {"nftables", "nft"},
	"kube-proxy-ipvs":            {"ipvs", "nft"},
}

// command is what starts it.
func (k *kubeProxy) command(s *story) []string {
	s.Helper()
	return []string{
		"env", "PATH=" + k.tools(s.T) + ":" + os.Getenv("PATH"),
		suite.KubeProxy,
		"--proxy-mode", k.mode,
		"--kubeconfig", s.kubeconfig,
		"--hostname-override", nodeName,
		"--cluster-cidr", fmt.Sprintf("%v,%v", lab.ClusterCIDR, lab.PrefixIn(proxy.IPv6, lab.ClusterCIDR)),
		"--conntrack-max-per-core", "0",
		"--iptables-min-sync-period", "100ms", "--ipvs-min-sync-period", "100ms",
	}
}

// tools is a folder in which plain "iptables" and its kin are of the backend: kube-proxy uses what it finds first in PATH.
func (k *kubeProxy) tools(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program, err := exec.LookPath("xtables-" + k.backend + "-multi")
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			if err := os.Symlink(program, filepath.Join(dir, command+suffix)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// awaitKubeProxy waits until all Services are in the kernel: it calls itself healthy before that.
func (s *story) awaitKubeProxy(k *kubeProxy) {
	s.Helper()
	for _, f := range proxy.Families {
		for svc, backends := range map[*corev1.Service]int{s.web: 4, s.sticky: 4, s.stream: 2, s.moving: 1} {
			eventually(s.T, fmt.Sprintf("kube-proxy serves %s over %v", svc.Name, f), func() error {
				select {
				case <-s.sluice.Done():
					s.Fatalf("kube-proxy ended: %v", s.sluice.Err())
				default:
				}
				return k.serves(s, svc, f, backends)
			})
		}
	}
}

// ipFamilies are the words of ip.
var ipFamilies = map[proxy.Family]string{proxy.IPv4: "inet", proxy.IPv6: "inet6"}

// serves says what of a Service is not in the kernel. IPVS gets one backend after the other, rules come all at once.
func (k *kubeProxy) serves(s *story, svc *corev1.Service, f proxy.Family, backends int) error {
	at := clusterIP(svc, f)
	want := 1
	var command, pattern string
	switch k.mode {
	case "iptables":
		command = suite.Mode{Backend: k.backend}.Tool(f, "save") + " -t nat"
		pattern = fmt.Sprintf(`(?m)^-A KUBE-SERVICES -d %v/.* -j KUBE-SVC-`, at.Addr())
	case "nftables":
		command = "nft list map " + nftFamilies[f] + " kube-proxy service-ips"
		pattern = fmt.Sprintf(`%v \. (tcp|udp) \. %d .*: goto service-`, at.Addr(), at.Port())
	case "ipvs":
		command = "ipvsadm -Sn"
		pattern = ` ` + regexp.QuoteMeta(at.String()) + ` -r `
		want = backends
	}
	words := strings.Fields(command)
	out, err := s.Node.Run(words[0], words[1:]...)
	if err == nil && k.mode == "ipvs" {
		// Sluice in mode ipvs has left the same virtual servers.
		var bound string
		if bound, err = s.Node.Run("ip", "-o", "addr", "show", "dev", "kube-ipvs0"); err == nil && !strings.Contains(bound, fmt.Sprintf(" %s %v/", ipFamilies[f], at.Addr())) {
			err = fmt.Errorf("%v is not on kube-ipvs0", at.Addr())
		}
	}
	if n := len(regexp.MustCompile(pattern).FindAllString(out, -1)); err == nil && n < want {
		err = fmt.Errorf("%s: %d, want %d", pattern, n, want)
	}
	return err
}

// theirChains are those that are not kubelet's, or everybody's, such as KUBE-MARK-MASQ.
const theirChains = `KUBE-(SVC|SVL|SEP|FW|EXT|SERVICES|NODEPORTS|NODE-PORT|POSTROUTING|FORWARD|PROXY|EXTERNAL|LOAD|SOURCE|IPVS)`

// traces are commands, and what kube-proxy leaves in what they say.
var traces = map[string]*regexp.Regexp{
	"nft list ruleset":                    regexp.MustCompile("kube-proxy|" + theirChains),
	"iptables-legacy-save":                regexp.MustCompile(theirChains),
	"ip6tables-legacy-save":               regexp.MustCompile(theirChains),
	"ip -o link":                          regexp.MustCompile(`kube-ipvs0`),
	"! command -v ipset || ipset list -n": regexp.MustCompile(`KUBE-`),
}

// left is what is in the kernel of it.
func (k *kubeProxy) left(s *story) (string, error) {
	var left strings.Builder
	all := maps.Clone(traces)
	if k.mode == "ipvs" {
		all[virtualServers] = regexp.MustCompile(`.`)
	}
	for command, theirs := range all {
		out, err := s.Node.Run("sh", "-c", command)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(out) {
			if theirs.MatchString(line) {
				fmt.Fprintf(&left, "%s: %s", command, line)
			}
		}
	}
	return left.String(), nil
}
