package nft

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRulesAreFoundByTheirHandles(t *testing.T) {
	listing := "table ip a { # handle 7\n\tchain b { # handle 1\n\t\ttype filter hook input priority filter; policy accept;\n" +
		"\t\ttcp dport 80 comment \"x # handle 9\" accept # handle 4\n\t\tmeta mark 1 \x1b[31mdrop # handle 5\n\t}\n}\n"
	want := map[uint64]string{4: `tcp dport 80 comment "x # handle 9" accept`, 5: "meta mark 1 ?[31mdrop"}
	if diff := cmp.Diff(want, parseRules([]byte(listing))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
