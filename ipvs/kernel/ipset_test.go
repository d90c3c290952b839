package kernel

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// TestKernelSetsAreListedAndRemoved makes ipsets as kube-proxy does, one with more members than the kernel tells in a message.
func TestKernelSetsAreListedAndRemoved(t *testing.T) {
	ns, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	const many = 2000
	script := strings.Builder{}
	script.WriteString(`create KUBE-CLUSTER-IP hash:ip,port
create KUBE-6-CLUSTER-IP hash:ip,port family inet6
add KUBE-6-CLUSTER-IP fd00::1,udp:53
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-TCP 30080
create SOMEBODY-ELSES hash:ip
create KUBE-LOAD-BALANCERS hash:ip
`)
	for i := range many {
		fmt.Fprintf(&script, "add KUBE-CLUSTER-IP 10.96.0.1,tcp:%d\n", i+1)
	}
	file := filepath.Join(t.TempDir(), "sets")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ns.Run("ipset", "restore", "-file", file); err != nil {
		t.Fatal(err)
	}
	wanted := func(name string) bool {
		return slices.Contains([]string{"KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP", "KUBE-NODE-PORT-TCP"}, name)
	}
	list := func(wanted func(string) bool) map[string][]Member {
		t.Helper()
		found := map[string][]Member{}
		err := ns.Do(func() error {
			all, err := Sets(wanted)
			for _, s := range all {
				found[s.Name] = s.Members
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	got := list(wanted)
	ports := map[uint16]bool{}
	for _, m := range got["KUBE-CLUSTER-IP"] {
		ports[m.Port] = true
		if want := (Member{netip.MustParseAddr("10.96.0.1"), m.Port, proxy.TCP}); m != want {
			t.Fatalf("got %v, want %v", m, want)
		}
	}
	if len(ports) != many {
		t.Errorf("%d members, want %d", len(ports), many)
	}
	delete(got, "KUBE-CLUSTER-IP")
	want := map[string][]Member{
		"KUBE-6-CLUSTER-IP":  {{netip.MustParseAddr("fd00::1"), 53, proxy.UDP}},
		"KUBE-NODE-PORT-TCP": {{Port: 30080}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	err = ns.Do(func() error {
		for _, name := range []string{"KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP", "KUBE-NODE-PORT-TCP", "KUBE-NODE-PORT-TCP"} {
			if err := RemoveSet(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if left := list(func(string) bool { return true }); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
	// A rule uses it.
	if _, err := ns.Run("iptables-nft", "-A", "INPUT", "-m", "set", "--match-set", "SOMEBODY-ELSES", "src", "-j", "ACCEPT"); err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error { return RemoveSet("SOMEBODY-ELSES") }); err == nil {
		t.Error("a set that is used is removed without an error")
	} else if want := "remove ipset SOMEBODY-ELSES: rules of others use it"; err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
