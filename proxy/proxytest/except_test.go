package proxytest

import (
	"slices"
	"testing"
)

// TestExceptionsNamePackets makes sure that an exception cannot outlive the packet that it is about.
func TestExceptionsNamePackets(t *testing.T) {
	s := clusterIPScenarios()[0]
	h := Harness{Except: []Exception{{
		Scenario: s.Name,
		Packets:  []string{"pod-b -> 10.96.0.10:80: pod-a remote-a", "pod-b -> 10.96.0.10:80: pod-a"},
	}}}
	want := []string{s.Name + ": pod-b -> 10.96.0.10:80: pod-a"}
	if void := h.void(); !slices.Equal(void, want) {
		t.Errorf("void are %q, want %q", void, want)
	}
	for line, excepted := range map[string]bool{"pod-b -> 10.96.0.10:80: pod-a remote-a": true, "node -> 10.96.0.10:80: pod-a remote-a, masq": false} {
		if got := h.excepts(s.Name, packet{text: line}); got != excepted {
			t.Errorf("%s: excepted is %v, want %v", line, got, excepted)
		}
	}
}
