package ipvs

import (
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/proxy"
)

// place is where an element is: no two elements of the table share one.
type place struct {
	in  set
	key string
}

// content is the rest of an element.
type content struct {
	value   string // empty for sets
	comment string
}

// element is an element of a set or map.
type element struct {
	place
	content
}

func (p place) object(c content) *knftables.Element {
	o := &knftables.Element{Key: []string{p.key}}
	if sets[p.in].IsMap() {
		o.Map, o.Value = p.in.name(), []string{c.value}
	} else {
		o.Set = p.in.name()
	}
	if c.comment != "" {
		o.Comment = &c.comment
	}
	return o
}

// edit is what happens to a place: what was there goes, and something else comes. Nil is nothing.
type edit struct {
	place
	old, new *content
}

// edits are what happens to several places, in the order in which they were first named.
type edits struct {
	list []edit
	at   map[place]int
}

// add notes an edit. If there is one of that place already, old must be what that one leaves.
func (e *edits) add(x edit) {
	if e.at == nil {
		e.at = map[place]int{}
	}
	if i, ok := e.at[x.place]; ok {
		e.list[i].new = x.new
		return
	}
	e.at[x.place] = len(e.list)
	e.list = append(e.list, x)
}

// settled leaves out what changes nothing in the end.
func (e *edits) settled() []edit {
	var list []edit
	for _, x := range e.list {
		if x.old == nil && x.new == nil || x.old != nil && x.new != nil && *x.old == *x.new {
			continue
		}
		list = append(list, x)
	}
	return list
}

// write puts edits into a transaction: what goes first, so that what comes finds its place empty.
func write(tx *knftables.Transaction, list []edit) {
	for _, x := range list {
		if x.old != nil {
			tx.Delete(x.object(*x.old))
		}
	}
	for _, x := range list {
		if x.new != nil {
			tx.Add(x.object(*x.new))
		}
	}
}

// portComment names the ServicePort an element is for, in as many bytes as the kernel takes. The name of a Service always
// fits; that of a port may be cut.
func portComment(n proxy.ServicePortName) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("./:-_", r):
			return r
		}
		return '_'
	}, n.String())
	return clean[:min(len(clean), knftables.CommentLengthMax-1)]
}
