package proxytest

import (
	"slices"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
)

// Inspected are the differences that an Inspector finds, each as "kind object", sorted.
func Inspected(t testing.TB, i proxy.Inspector, want *proxy.Snapshot) []string {
	t.Helper()
	found, err := i.Inspect(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, x := range found {
		all = append(all, x.Kind.String()+" "+x.Object)
	}
	slices.Sort(all)
	return all
}
