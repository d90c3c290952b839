package nft

import (
	"sigs.k8s.io/knftables"
)

// Place is where an element is: no two elements of a table share one.
type Place struct {
	Set *Set
	Key string
}

// Content is what an element has besides its key.
type Content struct {
	Value   string // empty for sets
	Comment string
}

// Contents are the elements of a state by their place.
func (s *Schema) Contents(found *State) map[Place]*Content {
	n := 0
	for _, list := range found.Elements {
		n += len(list)
	}
	all := make(map[Place]*Content, n)
	for _, set := range s.Sets {
		for _, e := range found.Elements[set.Name] {
			all[Place{set, e.Key}] = &Content{e.Value, e.Comment}
		}
	}
	return all
}

func (p Place) object(c *Content) *knftables.Element {
	o := &knftables.Element{Key: []string{p.Key}}
	if p.Set.IsMap() {
		o.Map, o.Value = p.Set.Name, []string{c.Value}
	} else {
		o.Set = p.Set.Name
	}
	if c.Comment != "" {
		o.Comment = &c.Comment
	}
	return o
}

// Edit is what happens to a place: what was there goes, and something else comes. Nil is nothing. What they point to must not
// change any more.
type Edit struct {
	Place
	Old, New *Content
}

// Edits are what happens to several places, in the order in which they were first named. The zero value is none.
type Edits struct {
	List []Edit
	at   map[Place]int
}

// Add notes an edit. If there is one of that place already, Old must be what that one leaves.
func (e *Edits) Add(x Edit) {
	if e.at == nil {
		e.at = map[Place]int{}
	}
	if i, ok := e.at[x.Place]; ok {
		e.List[i].New = x.New
		return
	}
	e.at[x.Place] = len(e.List)
	e.List = append(e.List, x)
}

// Has tells whether something was noted of a place.
func (e *Edits) Has(p Place) bool {
	_, noted := e.at[p]
	return noted
}

// Settled leaves out what changes nothing in the end.
func (e *Edits) Settled() []Edit {
	var list []Edit
	for _, x := range e.List {
		if x.Old == nil && x.New == nil || x.Old != nil && x.New != nil && *x.Old == *x.New {
			continue
		}
		list = append(list, x)
	}
	return list
}

// Write puts edits into a transaction: what goes first, so that what comes finds its place empty.
func Write(tx *knftables.Transaction, list []Edit) {
	for _, x := range list {
		if x.Old != nil {
			tx.Delete(x.object(x.Old))
		}
	}
	for _, x := range list {
		if x.New != nil {
			tx.Add(x.object(x.New))
		}
	}
}
