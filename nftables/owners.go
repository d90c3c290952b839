package nftables

import (
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// owners tells which Services want a shared element, and how often. Its comment names them.
type owners map[shared][]owner

type owner struct {
	name  proxy.ServiceName
	count int
}

// change takes what a ServicePort of a Service wanted and what it wants now, and notes what becomes of the elements.
func (o owners) change(to *edits, name proxy.ServiceName, was, now []shared) {
	for _, s := range now {
		o.count(to, s, name, 1)
	}
	for _, s := range was {
		o.count(to, s, name, -1)
	}
}

func (o owners) count(to *edits, s shared, name proxy.ServiceName, by int) {
	old := o.element(s)
	list := o[s]
	i := slices.IndexFunc(list, func(x owner) bool { return x.name == name })
	if i < 0 {
		i = len(list)
		list = append(slices.Clip(list), owner{name: name})
	}
	list[i].count += by
	if list[i].count == 0 {
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == 0 {
		delete(o, s)
	} else {
		o[s] = list
	}
	if after := o.element(s); to != nil && (old == nil || after == nil || *old != *after) {
		to.add(edit{old, after})
	}
}

// element is what the table should have for s, nil if nobody wants it.
func (o owners) element(s shared) *element {
	list := o[s]
	if len(list) == 0 {
		return nil
	}
	if len(list) == 1 {
		return &element{in: s.in, key: s.key, comment: commentOf(list[0].name.String())}
	}
	names := make([]string, len(list))
	for i, x := range list {
		names[i] = x.name.String()
	}
	slices.Sort(names)
	return &element{in: s.in, key: s.key, comment: commentOf(strings.Join(names, " "))}
}
