package suite

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// Patience is how long a suite waits for what must come: as long as a loaded machine may need.
var Patience = lab.Patient(2 * time.Minute)

// Eventually waits until check returns nil, and ends the test if it does not.
func Eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}
