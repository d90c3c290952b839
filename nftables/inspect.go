package nftables

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Inspect implements proxy.Inspector. It works out what a dataplane would mend that has just started.
func (d *dataplane) Inspect(ctx context.Context, want *proxy.Snapshot) ([]proxy.Difference, error) {
	table := nft.NewRunner(d.family, schema).Knowing(d.forms)
	found, err := table.Glance(ctx)
	if err != nil {
		return nil, err
	}
	return newDataplane(d.cfg, d.family, table).compare(want, found), nil
}

// compare lists how a table that was found differs from what want asks for. The dataplane is a new one that is not used for
// anything else.
func (d *dataplane) compare(want *proxy.Snapshot, found *nft.State) []proxy.Difference {
	if found == nil {
		return []proxy.Difference{{Kind: proxy.Missing, Object: "table " + Table}}
	}
	d.held = d.holdNothing(want.Node())
	h := d.held
	h.refusing = true
	if !found.Fits {
		// The table would be replaced with all that is in it. What is wrong with a chain counts once.
		list := nft.Damage{List: found.Unlike}
		list.Chains(found, slices.DeleteFunc(h.writer.fixed(true), func(c nft.Chain) bool { return named(found.Unlike, "chain "+c.Name) }))
		return list.List
	}
	l := newLedger(found)
	all, _ := l.changes(h, want) // what cannot be rendered is set aside, and not there
	chains := d.claimChains(all, found)
	common, obsolete := l.rest(h.owners)
	differences := d.damage(found, chains, all, common, obsolete)
	slices.SortStableFunc(differences, func(a, b proxy.Difference) int { return strings.Compare(a.Object, b.Object) })
	return differences
}

func named(list []proxy.Difference, object string) bool {
	return slices.ContainsFunc(list, func(x proxy.Difference) bool { return x.Object == object })
}

// nameOfSpec are the names that spec gives. Such a chain stays for some time when nothing leads to it any more.
var nameOfSpec = regexp.MustCompile(`^((node-port-)?(sticky-)?lb-[0-9]+(-local)?(-masq|-masq-but-pods)?|learn-[0-9]+)$`)
