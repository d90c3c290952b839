package nftables

import (
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// element is an element of a set or map.
type element struct {
	nft.Place
	nft.Content
	target spec // the chain that the value leads to, if it is one of which there are several
}

// differ notes what turns one list of elements into another.
func differ(to *nft.Edits, old, want []element) {
	had := make(map[nft.Place]*nft.Content, len(old))
	for i := range old {
		had[old[i].Place] = &old[i].Content
	}
	for i := range want {
		p := want[i].Place
		if was := had[p]; was == nil || *was != want[i].Content {
			to.Add(nft.Edit{Place: p, Old: was, New: &want[i].Content})
		}
		delete(had, p)
	}
	for i := range old {
		if p := old[i].Place; had[p] != nil {
			to.Add(nft.Edit{Place: p, Old: had[p]})
		}
	}
}

// portComment is the comment of all elements that belong to a ServicePort alone. The name of the port may be cut.
func portComment(name proxy.ServicePortName) string { return nft.CommentOf(name.String()) }
