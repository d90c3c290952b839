package nftables

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/nft"
)

// A transaction that fails gives back the numbers that its ServicePorts took. Those that a later one brings into the table all the
// same are theirs.
func TestKernelNumbersAreNobodyElsesAfterAFailure(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		refusals := 3
		d := dataplaneWith(f, func(tx *knftables.Transaction, run func() error) error {
			if strings.Contains(tx.String(), `"ns/s`) && refusals > 0 {
				refusals--
				return &nft.RefusedError{Output: "Invalid argument"}
			}
			return run()
		})
		var all []service
		for i := range 40 {
			all = append(all, service{
				name: fmt.Sprint("s", i), clusterIP: fmt.Sprint("10.96.3.", i+1), affinity: time.Hour, backends: backendsFrom(3*i, 3),
			})
		}
		_, _ = d.Apply(t.Context(), snapshot(f.node(), all...))
		if refusals > 0 {
			t.Fatalf("%d refusals are left: the test shows nothing", refusals)
		}
		for name, p := range d.held.ports {
			if !d.held.numbers.used[p.sticky.number] {
				t.Errorf("number %d of %v counts as free", p.sticky.number, name)
			}
		}
		d.held.numbers.next = 1 // as after 65,535 others
		all = append(all, service{name: "late", clusterIP: "10.96.3.99", affinity: time.Hour, backends: backendsFrom(900, 3)})
		if report := mustApply(t, d, snapshot(f.node(), all...)); report.Full {
			t.Error("the kernel refused a number that is taken")
		}
	})
}
