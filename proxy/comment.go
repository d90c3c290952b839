package proxy

import "strings"

// Comment is a text as the comment of a rule or element may be in every mode: without what would end it, which becomes "_", and cut
// to that many bytes.
func Comment(text string, limit int) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" ./:-_", r):
			return r
		}
		return '_'
	}, text)
	return clean[:min(len(clean), limit)]
}
