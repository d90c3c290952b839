package xtables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// targetOfRule is the chain that a rule jumps or goes to, or "".
func targetOfRule(m nfwatch.Message) string {
	expressions, err := netlink.UnmarshalAttributes(m.Attr(unix.NFTA_RULE_EXPRESSIONS))
	if err != nil {
		return ""
	}
	for _, e := range expressions {
		if string(nfwatch.Nested(e.Data, unix.NFTA_EXPR_NAME)) != "immediate\x00" {
			continue
		}
		name := nfwatch.Nested(e.Data, unix.NFTA_EXPR_DATA, unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN)
		if len(name) > 0 {
			return string(bytes.TrimRight(name, "\x00"))
		}
	}
	return ""
}

// handleOf is that of a rule.
func handleOf(m nfwatch.Message) uint64 {
	if value := m.Attr(unix.NFTA_RULE_HANDLE); len(value) == 8 {
		return binary.BigEndian.Uint64(value)
	}
	return 0
}

// part is what somebody may not touch: chains of a prefix, and jumps to them, in some tables of a family. The shared
// chain may be changed there, but not deleted.
type part struct {
	family proxy.Family
	tables []string
	prefix string
}

// touched says what a message tells to have happened to the part, or "".
func (p part) touched(m nfwatch.Message) string {
	if m.Family != nfFamily(p.family) {
		return ""
	}
	switch m.Kind {
	case unix.NFT_MSG_DELTABLE:
		if table := m.Text(unix.NFTA_TABLE_NAME); p.has(table) {
			return "deleted table " + table
		}
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		table, chain := m.Text(unix.NFTA_CHAIN_TABLE), m.Text(unix.NFTA_CHAIN_NAME)
		gone := m.Kind == unix.NFT_MSG_DELCHAIN && chain == SharedChain
		if p.has(table) && (gone || strings.HasPrefix(chain, p.prefix)) {
			return fmt.Sprintf("%s chain %s of table %s", verbOf(m.Kind), chain, table)
		}
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return p.touchedByRule(m)
	}
	return ""
}

func (p part) touchedByRule(m nfwatch.Message) string {
	table, chain := m.Text(unix.NFTA_RULE_TABLE), m.Text(unix.NFTA_RULE_CHAIN)
	if !p.has(table) {
		return ""
	}
	if strings.HasPrefix(chain, p.prefix) {
		return fmt.Sprintf("%s a rule in chain %s of table %s", verbOf(m.Kind), chain, table)
	}
	first := m.Kind == unix.NFT_MSG_NEWRULE && !m.Appended && m.Attr(unix.NFTA_RULE_POSITION) == nil
	if first && slices.Contains(builtin[table], chain) {
		for _, target := range kubeProxy {
			if bytes.Contains(m.Attr(unix.NFTA_RULE_EXPRESSIONS), []byte(target+"\x00")) {
				return fmt.Sprintf("put a jump to %s first in chain %s of table %s", target, chain, table)
			}
		}
	}
	// The name of a jump's target stands as text in the rule's expressions. A comment that
	// holds our prefix looks the same: then there is one comparison too many.
	if m.Kind == unix.NFT_MSG_DELRULE && bytes.Contains(m.Attr(unix.NFTA_RULE_EXPRESSIONS), []byte(p.prefix)) {
		return fmt.Sprintf("deleted a jump to ours in chain %s of table %s", chain, table)
	}
	return ""
}

func (p part) has(table string) bool {
	return slices.Contains(p.tables, table)
}

func verbOf(kind uint16) string {
	if kind == unix.NFT_MSG_DELCHAIN || kind == unix.NFT_MSG_DELRULE {
		return "deleted"
	}
	return "wrote"
}

func nfFamily(f proxy.Family) uint8 {
	if f == proxy.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}
