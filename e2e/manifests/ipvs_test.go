package manifests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestShippedIPVS asks of mode ipvs what the tests beside it ask of the others, in a kernel that has IPVS.
func TestShippedIPVS(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *node){
		"serves": servesWithItsPrivileges, "capabilities": needsItsCapabilities, "clean-up": cleansUpWithItsPrivileges,
		"leaves nothing": leavesNothingOfIPVS,
	} {
		t.Run(name, func(t *testing.T) { eachWay(t, elsewhere, test) })
	}
}

// ipvsState is all that the mode has in the kernel or sets there.
func (n *node) ipvsState(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, command := range []string{
		"ipvsadm -Sn", "ip -4 rule", "ip -6 rule", "ip -4 route show table 21338", "ip -4 route show table 21339",
		"ip -6 route show table 21338", "ip -6 route show table 21339", "ip -o link", "grep . -r /proc/sys/net/ipv4/vs",
	} {
		// A table that never had a route cannot be listed.
		out, err := n.Node.Run("sh", "-c", command+" 2>/dev/null || true")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s:\n%s", command, out)
	}
	return all.String()
}

// leavesNothingOfIPVS has somebody set parameters back, which the main container may not set: it says so once, and goes on to repair
// all else. In the end cleanup.yaml leaves the kernel as it was.
func leavesNothingOfIPVS(t *testing.T, n *node) {
	if _, err := n.Node.Run("modprobe", "ip_vs"); err != nil {
		t.Fatal(err)
	}
	before := n.ipvsState(t)
	n.init(t).start(t, n.Node).succeeds(t)
	sluice := n.main(t).start(t, n.Node)
	sluice.awaitReady(t)
	n.wantServed(t, n.Pods[1])
	if err := n.Node.Sysctl(map[string]string{"net/ipv4/vs/expire_nodest_conn": "0"}); err != nil {
		t.Fatal(err)
	}
	const complaint = "Serving with a kernel parameter that is wrong and cannot be set"
	eventually(t, "the complaint about a parameter", func() error { return contains(sluice.log(t), complaint) })
	for range 2 {
		n.flush(t)
		n.wantServed(t, n.Pods[1])
	}
	if said := sluice.log(t); strings.Count(said, complaint) != 1 || !strings.Contains(said, "expire_nodest_conn is 0 instead of 1") {
		t.Errorf("about a parameter sluice says:\n%s", said)
	}
	sluice.Kill()
	if n.ipvsState(t) == before {
		t.Fatal("there is nothing to clean up")
	}
	n.cleanup().start(t, n.Node).succeeds(t)
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(n.ipvsState(t), "\n")); diff != "" {
		t.Errorf("before (-) and after a clean-up (+):\n%s", diff)
	}
}
