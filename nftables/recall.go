package nftables

import (
	"context"
	"net/netip"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Recall implements proxy.Recaller. It looks up three elements.
func (d *dataplane) Recall(ctx context.Context, port *proxy.ServicePort, frontend proxy.Frontend, client netip.Addr) (netip.AddrPort, bool, error) {
	table := nft.NewRunner(d.family, schema)
	value := func(set *nft.Set, key string) (string, error) {
		place := nft.Place{Set: set, Key: key}
		found, err := table.Get(ctx, []nft.Place{place})
		if err != nil || found[place] == nil {
			return "", err
		}
		return found[place].Value, nil
	}
	number, err := value(familyOf(frontend).sticky, frontendKeyOf(port.Name.Protocol, frontend))
	if err != nil || number == "" {
		return netip.AddrPort{}, false, err
	}
	id, err := value(affinity, number+" . "+client.String())
	if err != nil || id == "" {
		return netip.AddrPort{}, false, err
	}
	for _, set := range []*nft.Set{stickyBackends, stickyLocalBackends} {
		text, err := value(set, id)
		if err != nil {
			return netip.AddrPort{}, false, err
		}
		if text != "" {
			return parseBackend(text), true, nil
		}
	}
	return netip.AddrPort{}, false, nil // of a backend that is gone
}
