package kernel

import (
	"fmt"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// Compare lists how rules and routes differ from what they should be.
func (r *Router) Compare(want Routes) ([]proxy.Difference, error) {
	h, err := open()
	if err != nil {
		return nil, fmt.Errorf("compare rules and routes: %w", err)
	}
	defer h.Close()
	have, err := r.find(h)
	if err != nil {
		return nil, fmt.Errorf("list rules and routes: %w", err)
	}
	lo, err := h.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	missing, obsolete := r.plan(want, lo.Attrs().Index).compare(have)
	return differences(missing.names(), obsolete.names()), nil
}

// differences are those between what is missing and what is too much. What is both is altered.
func differences(missing, obsolete []string) []proxy.Difference {
	var all []proxy.Difference
	for _, name := range missing {
		x := proxy.Difference{Kind: proxy.Missing, Object: name}
		if slices.Contains(obsolete, name) {
			x.Kind = proxy.Altered
		}
		all = append(all, x)
	}
	for _, name := range obsolete {
		if !slices.Contains(missing, name) {
			all = append(all, proxy.Difference{Kind: proxy.Foreign, Object: name})
		}
	}
	return all
}
