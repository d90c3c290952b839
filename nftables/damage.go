package nftables

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/klog/v2"
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
func (d *damage) edits(list []edit) {
	for _, x := range list {
		switch {
		case x.old == nil:
			d.missing.add(x.new.String())
		case x.new == nil:
			d.foreign.add(x.old.String())
		default:
			d.altered.add(x.new.String())
		}
	}
}

// String is what the element is and whose.
func (e *element) String() string {
	if e.comment == "" {
		return fmt.Sprintf("%s { %s }", e.in.name(), e.key)
	}
	return fmt.Sprintf("%s { %s } of %s", e.in.name(), e.key, e.comment)
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
