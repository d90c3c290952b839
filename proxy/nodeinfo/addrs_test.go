package nodeinfo

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
)

func TestAddressesAreReadAfterFailures(t *testing.T) {
	broken := errors.New("interrupted")
	for _, tt := range []struct {
		name     string
		failures int
		ended    bool // the context
		tries    int
		want     error
	}{
		{"at once", 0, false, 1, nil},
		{"at the last try", addrTries - 1, false, addrTries, nil},
		{"never", addrTries, false, addrTries, broken},
		{"the end comes first", addrTries, true, 1, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				tries := 0
				addrs, err := atLast(ctx, func() ([]netip.Addr, error) {
					if tries++; tries > tt.failures {
						return []netip.Addr{netip.IPv6Loopback()}, nil
					}
					if tt.ended {
						cancel()
					}
					return nil, broken
				})
				if !errors.Is(err, tt.want) || (err == nil) != (len(addrs) == 1) || tries != tt.tries {
					t.Errorf("%v, %v after %d tries; want %v after %d", addrs, err, tries, tt.want, tt.tries)
				}
			})
		})
	}
}
