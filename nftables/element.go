package nftables

import (
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/proxy"
)

// element is an element of a set or map.
type element struct {
	in      set
	key     string
	value   string // empty for sets
	target  spec   // the chain that value leads to, if it is one of which there are several
	comment string
}

// place is where an element is: no two elements share one.
type place struct {
	in  set
	key string
}

func (e *element) place() place { return place{e.in, e.key} }

func (e *element) object() *knftables.Element {
	o := &knftables.Element{Key: []string{e.key}}
	if sets[e.in].IsMap() {
		o.Map, o.Value = e.in.name(), []string{e.value}
	} else {
		o.Set = e.in.name()
	}
	if e.comment != "" {
		o.Comment = &e.comment
	}
	return o
}

// edit is what happens to a place: it had an element and will have another. Nil is none. Both are never nil.
type edit struct{ old, new *element }

func (e edit) place() place {
	if e.old != nil {
		return e.old.place()
	}
	return e.new.place()
}

// edits are what happens to several places, in the order in which they were added.
type edits struct {
	list []edit
	at   map[place]int
}

// add notes an edit. If there is one of that place already, old must be what that one leaves.
func (e *edits) add(x edit) {
	if e.at == nil {
		e.at = map[place]int{}
	}
	p := x.place()
	if i, ok := e.at[p]; ok {
		e.list[i].new = x.new
		return
	}
	e.at[p] = len(e.list)
	e.list = append(e.list, x)
}

// replace notes what turns one list of elements into another.
func (e *edits) replace(old, want []element) {
	had := make(map[place]*element, len(old))
	for i := range old {
		had[old[i].place()] = &old[i]
	}
	for i := range want {
		p := want[i].place()
		if was := had[p]; was == nil || *was != want[i] {
			e.add(edit{was, &want[i]})
		}
		delete(had, p)
	}
	for i := range old {
		if had[old[i].place()] != nil {
			e.add(edit{old: &old[i]})
		}
	}
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
			tx.Delete(x.old.object())
		}
	}
	for _, x := range list {
		if x.new != nil {
			tx.Add(x.new.object())
		}
	}
}

// commentOf names whom an element is for. The name of a Service always fits; that of a port may be cut.
func commentOf(text string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" ./:-_", r):
			return r
		}
		return '_'
	}, text)
	return clean[:min(len(clean), knftables.CommentLengthMax-1)]
}

// portComment is the comment of all elements that belong to a ServicePort alone.
func portComment(name proxy.ServicePortName) string { return commentOf(name.String()) }
