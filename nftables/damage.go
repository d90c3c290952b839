package nftables

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/nft"
)

// damage is what a doubt was about: how the table that was found differs from what is wanted. What changed in the
// cluster since the last Apply is in it too.
type damage struct{ missing, altered, foreign names }

// names are those of chains and elements: some of them, and how many there are.
type names struct {
	some []string
	n    int
}

// maxNames is how many names are told.
const maxNames = 5

func (n *names) add(name string) {
	if n.n++; n.n <= maxNames {
		n.some = append(n.some, name)
	}
}

// String is what the log says.
func (n *names) String() string {
	text := strings.Join(n.some, ", ")
	if more := n.n - len(n.some); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// chain notes that a chain has other rules than it should, or is not there.
func (d *damage) chain(name string, there bool) {
	if there {
		d.altered.add("chain " + name)
	} else {
		d.missing.add("chain " + name)
	}
}

// edits notes elements that are about to be mended.
func (d *damage) edits(list []nft.Edit) {
	for _, x := range list {
		switch {
		case x.Old == nil:
			d.missing.add(textOf(x.Place, x.New))
		case x.New == nil:
			d.foreign.add(textOf(x.Place, x.Old))
		default:
			d.altered.add(textOf(x.Place, x.New))
		}
	}
}

// textOf is what an element is and whose.
func textOf(p nft.Place, c *nft.Content) string {
	if c.Comment == "" {
		return fmt.Sprintf("%s { %s }", p.Set.Name, p.Key)
	}
	return fmt.Sprintf("%s { %s } of %s", p.Set.Name, p.Key, c.Comment)
}

// tell logs what a doubt was about, once.
func (d *dataplane) tell(ctx context.Context, found *damage) {
	if !d.doubted {
		return
	}
	d.doubted = false
	klog.FromContext(ctx).Info("Compared the table after a doubt", "table", Table,
		"missing", found.missing.String(), "altered", found.altered.String(), "foreign", found.foreign.String())
}
