package nft

import (
	"fmt"
	"net/netip"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/proxy"
)

// CommentOf is a text as a comment may be: without what would end it, and not longer than the kernel takes. The name of a
// Service always fits.
func CommentOf(text string) string {
	return proxy.Comment(text, MaxComment)
}

// MaxComment is the length of the longest comment, in bytes: one of what the kernel takes is the end.
const MaxComment = knftables.CommentLengthMax - 1

// MatchPods matches the traffic of pods, or all other traffic. It is empty if there is no way to tell pods apart.
func MatchPods(f proxy.Family, source proxy.PodSource, others bool) string {
	not := ""
	if others {
		not = "!= "
	}
	switch source.Kind {
	case proxy.PodSourcePrefix:
		return string(Family(f)) + " saddr " + not + source.Prefix.String()
	case proxy.PodSourceInterface:
		return fmt.Sprintf("iifname %s%q", not, source.Interface)
	case proxy.PodSourceInterfacePrefix:
		// An interface name of this length has no room for more, so the wildcard would not match it.
		const longestName = 15
		if len(source.Interface) >= longestName {
			return fmt.Sprintf("iifname %s%q", not, source.Interface)
		}
		return fmt.Sprintf("iifname %s%q", not, source.Interface+"*")
	}
	return ""
}

// PrefixText is a prefix as nft writes it.
func PrefixText(p netip.Prefix) string {
	return string(AppendPrefixLength([]byte(p.Addr().String()), p))
}
