package ipvs

import (
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// element is an element of a set or map.
type element struct {
	nft.Place
	nft.Content
}

// at is a place in the set.
func (s set) at(key string) nft.Place { return nft.Place{Set: sets[s], Key: key} }

// added is an edit of a set by which an element comes.
func added(p nft.Place, comment string) nft.Edit {
	return nft.Edit{Place: p, New: &nft.Content{Comment: comment}}
}

// removed is an edit of a set by which an element goes.
func removed(p nft.Place) nft.Edit { return nft.Edit{Place: p, Old: &nft.Content{}} }

// portComment names the ServicePort an element is for.
func portComment(n proxy.ServicePortName) string { return nft.CommentOf(n.String()) }
