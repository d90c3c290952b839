package nftables

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

func TestSharedElementsNameTheirServices(t *testing.T) {
	o := owners{}
	at := shared{Set: hairpin, Key: "10.1.0.1 . 10.1.0.1"}
	step := func(name string, was, now []shared) *nft.Content {
		var to nft.Edits
		o.change(&to, proxy.ServiceName{Namespace: "ns", Name: name}, was, now)
		for _, x := range to.Settled() {
			return x.New
		}
		return &nft.Content{Comment: "unchanged"}
	}
	here := []shared{at}
	for i, x := range []struct {
		name     string
		was, now []shared
		want     string
	}{
		{"web", nil, here, "ns/web"},
		{"api", nil, here, "ns/api ns/web"},
		{"api", nil, here, "unchanged"},
		{"api", here, nil, "unchanged"},
		{"web", here, here, "unchanged"},
		{"api", here, nil, "ns/web"},
	} {
		if got := step(x.name, x.was, x.now); got.Comment != x.want {
			t.Errorf("step %d: %q, want %q", i, got.Comment, x.want)
		}
	}
	if got := step("web", here, nil); got != nil || len(o) != 0 {
		t.Errorf("nobody is left: %v, %v", got, o)
	}
}

// Thousands of Services may select the same pods.
func TestSharedElementsOfThousandsOfServices(t *testing.T) {
	o := owners{}
	var pods []shared
	for i := range 100 {
		pods = append(pods, shared{Set: hairpin, Key: fmt.Sprint(i)})
	}
	start := time.Now()
	var to nft.Edits
	for i := range 3000 {
		o.change(&to, proxy.ServiceName{Namespace: "ns", Name: fmt.Sprintf("web-%04d", i*1009%3000)}, nil, pods)
	}
	if took := time.Since(start); took > time.Minute { // seconds, if a change does not cost as much as all before it
		t.Errorf("took %v", took)
	}
	for _, x := range to.Settled() {
		if len(x.New.Comment) > nft.MaxComment || !strings.HasPrefix(x.New.Comment, "ns/web-0000 ns/web-0001 ") {
			t.Fatalf("comment %q", x.New.Comment)
		}
	}
}
