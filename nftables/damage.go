package nftables

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// damage is how a table that was found differs from what is wanted: chains, and the edits that would mend its elements.
func (d *dataplane) damage(found *nft.State, want []nft.Chain, all []*change, common nft.Edits, obsolete []nft.Edit) []proxy.Difference {
	var list nft.Damage
	if found.Asleep {
		list.Add(proxy.Altered, "table "+Table, "it is dormant", "")
	}
	list.Chains(found, want)
	lacking := map[spec]bool{}
	for _, s := range leads(all) {
		if _, there := found.Chains[s.name()]; !there && !lacking[s] {
			lacking[s] = true
			list.Add(proxy.Missing, "chain "+s.name(), "", "")
		}
	}
	for name := range d.held.idle {
		if !nameOfSpec.MatchString(name) {
			list.Add(proxy.Foreign, "chain "+name, "", "")
		}
	}
	for _, c := range all {
		list.Edits(c.edits.List)
	}
	list.Edits(common.List)
	list.Edits(obsolete)
	return list.List
}

// maxNames is how many names of a kind are told.
const maxNames = 5

// tell logs what a doubt was about, once. What changed in the cluster since the last Apply is in it too.
func (d *dataplane) tell(ctx context.Context, found []proxy.Difference) {
	if !d.doubted {
		return
	}
	d.doubted = false
	klog.FromContext(ctx).Info("Compared the table after a doubt", "table", Table,
		"missing", names(found, proxy.Missing), "altered", names(found, proxy.Altered), "foreign", names(found, proxy.Foreign))
}

// names are those of some differences of a kind.
func names(found []proxy.Difference, kind proxy.DifferenceKind) string {
	var some []string
	more := -maxNames
	for _, x := range found {
		if x.Kind != kind {
			continue
		}
		if more++; more <= 0 {
			some = append(some, nameOf(x))
		}
	}
	text := strings.Join(some, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func nameOf(x proxy.Difference) string {
	if x.Service == "" {
		return x.Object
	}
	return x.Object + " of " + x.Service
}

// unlike says why a table cannot be mended.
func (d *dataplane) unlike(found *nft.State) string {
	if d.beyond == nil {
		return found.Why()
	}
	return strings.TrimPrefix(found.Why()+", "+d.beyond.Error(), ", ")
}
