package nftables

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// owners tells which Services want a shared element, and how often. Its comment names as many of them as fit.
type owners map[shared][]owner // by name

type owner struct {
	name  proxy.ServiceName
	count int
}

func (o owner) compare(name proxy.ServiceName) int {
	return cmp.Or(strings.Compare(o.name.Namespace, name.Namespace), strings.Compare(o.name.Name, name.Name))
}

// change takes what a ServicePort of a Service wanted and what it wants now, and notes what becomes of the elements.
func (o owners) change(to *nft.Edits, name proxy.ServiceName, was, now []shared) {
	for _, s := range now {
		o.count(to, s, name, 1)
	}
	for _, s := range was {
		o.count(to, s, name, -1)
	}
}

func (o owners) count(to *nft.Edits, s shared, name proxy.ServiceName, by int) {
	var old *nft.Content
	if to != nil {
		old = o.content(s)
	}
	list := o[s]
	i, there := slices.BinarySearchFunc(list, name, owner.compare)
	if !there {
		list = slices.Insert(list, i, owner{name: name})
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
	if to == nil {
		return
	}
	if after := o.content(s); old == nil || after == nil || *old != *after {
		to.Add(nft.Edit{Place: s, Old: old, New: after})
	}
}

// content is what the table should have for s, nil if nobody wants it.
func (o owners) content(s shared) *nft.Content {
	list := o[s]
	if len(list) == 0 {
		return nil
	}
	text := list[0].name.String()
	for _, x := range list[1:] {
		if len(text) >= nft.MaxComment {
			break
		}
		text += " " + x.name.String()
	}
	return &nft.Content{Comment: nft.CommentOf(text)}
}
