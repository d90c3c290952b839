package trace

import (
	"context"
	"regexp"

	"github.com/sluice-proxy/sluice/nft"
)

// rules are the texts of rules, read chain by chain when the first packet comes through.
type rules map[chain]map[uint64]string

type chain struct{ family, table, name string }

// text is a rule in the words of nft, "" if it is not there any more or nft cannot tell, which is no reason not to follow packets.
func (r rules) text(ctx context.Context, s nft.Step) string {
	if s.Rule == 0 {
		return ""
	}
	c := chain{s.Family, s.Table, s.Chain}
	if r[c] == nil {
		texts, err := nft.Rules(ctx, c.family, c.table, c.name)
		if err != nil {
			texts = map[uint64]string{}
		}
		r[c] = texts
	}
	return digest.ReplaceAllString(r[c][s.Rule], "")
}

// digest is the comment by which Sluice knows its own rules again.
var digest = regexp.MustCompile(` comment "[0-9a-f]{8}"$`)
