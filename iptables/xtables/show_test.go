package xtables

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

// TestCountsAreReadInBothForms reads what iptables -v -S prints: some releases with backend nft put counters first, as iptables-save does.
func TestCountsAreReadInBothForms(t *testing.T) {
	want := Wanted{Table: "nat", Chains: map[string][]string{"SLUICE-A": {"-A SLUICE-A -j ACCEPT"}}}
	for _, line := range []string{"-A SLUICE-A -c 3 180 -j ACCEPT", "[3:180] -A SLUICE-A -j ACCEPT"} {
		i := newInspection(proxy.IPv4, "SLUICE-", want)
		i.partial = true
		if err := i.parse(strings.NewReader(":SLUICE-A - [0:0]\n-N SLUICE-A\n" + line + "\n")); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Rule{{"-A SLUICE-A -j ACCEPT", 3, 180}}, i.shown); diff != "" || len(i.differences) > 0 {
			t.Errorf("%s: %v, (-want +got):\n%s", line, i.differences, diff)
		}
	}
}
