package iptables

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// List implements proxy.Lister, for both backends.
func (m mode) List(ctx context.Context, w io.Writer) error {
	var errs []error
	for _, family := range proxy.Families {
		for _, backend := range xtables.Backends {
			ipt, err := m.open(family, backend)
			if err != nil {
				continue // see cleanup
			}
			for _, table := range []string{nat, filter} {
				if err := ipt.List(ctx, table, w); err != nil && !xtables.NoKernel(err) {
					errs = append(errs, fmt.Errorf("%v, table %s: %w", ipt, table, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}
