package nft

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// rulesLimit is how long a chain may take to be listed.
const rulesLimit = 10 * time.Second

// Rules are the rules of any chain in the words of nft, by their handles, without what could confuse a terminal.
func Rules(ctx context.Context, family, table, chain string) (map[uint64]string, error) {
	ctx, cancel := context.WithTimeout(ctx, rulesLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nft", "--handle", "list", "chain", family, table, chain).Output()
	if err != nil {
		return nil, fmt.Errorf("list chain %s of table %s %s: %w", chain, family, table, err)
	}
	return parseRules(out), nil
}

// parseRules finds rules by their handles in what nft lists.
func parseRules(listing []byte) map[uint64]string {
	found := map[uint64]string{}
	lines := bufio.NewScanner(bytes.NewReader(listing))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		rule, handle, ok := cutLast(line, " # handle ")
		if !ok || strings.HasSuffix(rule, "{") {
			continue
		}
		if number, err := strconv.ParseUint(handle, 10, 64); err == nil {
			found[number] = printable(rule)
		}
	}
	return found
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// printable replaces what could confuse a terminal: rules are everybody's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
