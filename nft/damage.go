package nft

import (
	"fmt"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// Damage is how a table that was found differs from what is wanted. The zero value is none.
type Damage struct{ List []proxy.Difference }

// Add notes a difference.
func (d *Damage) Add(kind proxy.DifferenceKind, object, detail, service string) {
	d.List = append(d.List, proxy.Difference{Kind: kind, Object: object, Detail: detail, Service: service})
}

// Chains notes the chains of want that a State does not hold as they are.
func (d *Damage) Chains(found *State, want []Chain) {
	for _, c := range want {
		digests, there := found.Chains[c.Name]
		switch {
		case !there:
			d.Add(proxy.Missing, "chain "+c.Name, "", "")
		case !c.Is(found):
			d.Add(proxy.Altered, "chain "+c.Name, c.unlike(digests), "")
		}
	}
}

// unlike says how the rules that were found differ from those of the chain.
func (c Chain) unlike(found []string) string {
	want := c.Digests()
	missing, foreign := 0, 0
	for _, digest := range want {
		if !slices.Contains(found, digest) {
			missing++
		}
	}
	for _, digest := range found {
		if !slices.Contains(want, digest) {
			foreign++
		}
	}
	if missing+foreign == 0 {
		return fmt.Sprintf("%d rules instead of %d, or in another order", len(found), len(want))
	}
	return fmt.Sprintf("of %d rules %d are missing, %d are foreign", len(want), missing, foreign)
}

// Edits notes elements that are not as they should be, by what would mend them.
func (d *Damage) Edits(list []Edit) {
	for _, x := range list {
		switch {
		case x.Old == nil:
			d.Add(proxy.Missing, x.Name(), "", x.New.Comment)
		case x.New == nil:
			d.Add(proxy.Foreign, x.Name(), "", x.Old.Comment)
		default:
			d.Add(proxy.Altered, x.Name(), unlike(x.Old, x.New), x.New.Comment)
		}
	}
}

// Name is the place as nft shows it.
func (p Place) Name() string {
	kind := "set"
	if p.Set.IsMap() {
		kind = "map"
	}
	return fmt.Sprintf("%s %s { %s }", kind, p.Set.Name, p.Key)
}

func unlike(is, want *Content) string {
	if is.Value != want.Value {
		return fmt.Sprintf("%s instead of %s", is.Value, want.Value)
	}
	return fmt.Sprintf("comment %q", is.Comment)
}
