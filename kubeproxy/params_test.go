package kubeproxy

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
)

func TestParametersThatMayBeKubeProxysStay(t *testing.T) {
	tree := sysctl.Tree{Root: t.TempDir()}
	for name, value := range map[string]string{
		"net/netfilter/nf_conntrack_max":                     "131072\n",
		"net/netfilter/nf_conntrack_tcp_timeout_established": "86400\n",
		"net/netfilter/nf_conntrack_tcp_timeout_close_wait":  "60\n", // the kernel's
		"net/ipv4/conf/all/route_localnet":                   "0\n",  // not set, or set back
		"net/ipv4/vs/conntrack":                              "1\n",
		"net/ipv4/conf/all/arp_announce":                     "2\n",
		"net/ipv4/conf/all/arp_ignore":                       "8\n", // somebody else's
		"net/ipv4/ip_forward":                                "on\n",
	} {
		file := filepath.Join(tree.Root, "proc/sys", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, p := range slices.Concat(TrackingParameters, RulesParameters, VirtualParameters) {
		if line, stays := p.Stays(tree); stays {
			got = append(got, line)
		}
	}
	want := []string{
		"stays: value 131072 of kernel parameter /proc/sys/net/netfilter/nf_conntrack_max, which kube-proxy sets",
		"stays: value 86400 of kernel parameter /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established, which kube-proxy sets",
		"stays: value 1 of kernel parameter /proc/sys/net/ipv4/vs/conntrack, which kube-proxy sets",
		"stays: value 2 of kernel parameter /proc/sys/net/ipv4/conf/all/arp_announce, which kube-proxy sets",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The names of the files are right if the running kernel knows them. IPVS has its own only while it is loaded.
func TestRunningKernelHasTheParameters(t *testing.T) {
	for _, p := range slices.Concat(TrackingParameters, RulesParameters, VirtualParameters[4:]) {
		if _, err := (sysctl.Tree{}).Get("proc/sys/" + p.name); err != nil {
			t.Error(err)
		}
	}
}
