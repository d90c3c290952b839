package xtables

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestRefusal(t *testing.T) {
	input := "*filter\nCOMMIT\n*nat\n:SLUICE-A - [0:0]\n-A SLUICE-A -m comment --comment \"-j SLUICE-B\" -j RETURN\n" +
		"-A SLUICE-A -j SLUICE-B\nCOMMIT\n"
	tests := []struct {
		name, output string
		line         int
		resource     bool
	}{
		{"parser, both backends",
			"iptables-restore v1.8.9 (legacy): unknown option \"--nope\"\nError occurred at line: 5\nTry `iptables-restore -h' or 'iptables-restore --help' for more information.\n", 5, false},
		{"parser that names the line twice",
			"iptables-nft-restore v1.8.9 (nf_tables): iptables-nft-restore: line 1 table name 'nope' invalid\nError occurred at line: 1\n", 1, false},
		{"command of legacy", "iptables-restore: line 6 failed\n", 6, false},
		{"command of nft", "iptables-nft-restore: line 6 failed: No chain/target/match by that name.\n", 6, false},
		{"table of legacy", "iptables-restore: line 7 failed\n", 0, false},
		{"kernel, nft", "iptables-nft-restore v1.8.9 (nf_tables): \nline 5: RULE_APPEND failed (Too many links): rule in chain SLUICE-A\nline 6: RULE_APPEND failed (Too many links): rule in chain SLUICE-A\n", 5, false},
		{"kernel, nft, exit status 4 all the same", "iptables-nft-restore v1.8.9 (nf_tables): \nline 4: CHAIN_DEL failed (Device or resource busy): chain SLUICE-A\n", 4, false},
		{"kernel, nft, musl", "iptables-restore v1.8.10 (nf_tables): \nline 4: CHAIN_DEL failed (Resource busy): chain SLUICE-A\n", 4, false},
		{"missing chain, nft", "iptables-nft-restore v1.8.9 (nf_tables): Chain 'SLUICE-B' does not exist\nError occurred at line: 7\n", 6, false},
		{"missing chain that nobody names", "iptables-nft-restore v1.8.9 (nf_tables): Chain 'SLUICE-C' does not exist\nError occurred at line: 7\n", 0, false},
		{"no COMMIT", "iptables-restore: COMMIT expected at line 8\n", 8, false},
		{"line that is not there", "iptables-restore: line 99 failed\n", 8, false},
		{"number too large for any", "iptables-restore: line 99999999999999999999 failed\n", 0, false},
		{"no line", "iptables-restore: mystery\n", 0, false},
		{"nothing", "", 0, false},
		{"lock", "Another app is currently holding the xtables lock. Stopped waiting after 1s.\n", 0, true},
		{"lock file", "Can't lock /run/xtables.lock: Resource temporarily unavailable\n", 0, true},
		{"lock directory", "Fatal: can't open lock file /run/xtables.lock: Read-only file system\n", 0, true},
		{"memory, glibc", "iptables-nft-restore v1.8.9 (nf_tables): \nline 5: RULE_APPEND failed (Cannot allocate memory): rule in chain SLUICE-A\n", 0, true},
		{"memory, musl", "iptables-restore v1.8.10 (nf_tables): \nline 5: RULE_APPEND failed (Out of memory): rule in chain SLUICE-A\n", 0, true},
		{"memory, legacy", "iptables-restore: line 7 failed: Memory allocation problem.\n", 0, true},
	}
	for _, test := range tests {
		cause := errors.New("exit status 4")
		got := refusal([]byte(input), test.output, cause)
		if got.Line != test.line || got.Resource != test.resource || got.Output != strings.TrimSpace(test.output) || !errors.Is(got, cause) {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add([]byte("*nat\n-A SLUICE-A -j SLUICE-B\nCOMMIT\n"), "Chain 'SLUICE-B' does not exist\nError occurred at line: 3\n")
	f.Add([]byte("*nat\n:SLUICE-A - [0:0]\nCOMMIT\n"), "iptables-restore: line 3 failed\n")
	f.Add([]byte("*nat\n"), "line 1: RULE_APPEND failed (Too many links): rule in chain A")
	f.Add([]byte(nil), "Error occurred at line: 0")
	f.Add([]byte("*nat\n-A A -j \"B\nCOMMIT"), "Another app is currently holding the xtables lock")
	f.Fuzz(func(t *testing.T, input []byte, output string) {
		e := refusal(input, output, errors.New("exit status 1"))
		if last := bytes.Count(input, []byte("\n")) + 1; e.Line < 0 || e.Line > last {
			t.Errorf("line %d of %d", e.Line, last)
		}
		if e.Resource && e.Line != 0 {
			t.Errorf("line %d is blamed for a lack of resources", e.Line)
		}
		if text, _ := lineAt(input, e.Line); text == "COMMIT" {
			t.Errorf("line %d is a whole table", e.Line)
		}
	})
}
