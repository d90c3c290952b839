package cluster

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
)

// tool is the name of an iptables program of the world's backend.
func (w *world) tool(f proxy.Family, suffix string) string { return w.mode.Tool(f, suffix) }

// save is what iptables-save says of the node, without counters, and in mode nftables its table, too.
func (w *world) save(t *testing.T, f proxy.Family) string {
	t.Helper()
	out, err := w.Node.Run(w.tool(f, "save"))
	if err != nil {
		t.Fatal(err)
	}
	if w.mode.Mode == "nftables" {
		tables, err := w.Node.Run("nft", "list", "tables", nftFamily(f))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(tables, " sluice\n") {
			table, err := w.Node.Run("nft", "-s", "list", "table", nftFamily(f), "sluice")
			if err != nil {
				t.Fatal(err)
			}
			out += table
		}
	}
	return regexp.MustCompile(`(?m)^#.*\n| \[\d+:\d+\]`).ReplaceAllString(out, "")
}

func nftFamily(f proxy.Family) string {
	if f == proxy.IPv6 {
		return "ip6"
	}
	return "ip"
}

// flushes are commands of a firewall script that takes away what serves.
func (w *world) flushes(f proxy.Family) [][]string {
	if w.mode.Mode == "nftables" {
		return [][]string{{"nft", "flush", "chain", nftFamily(f), "sluice", "nat-prerouting"}, {"nft", "delete", "table", nftFamily(f), "sluice"}}
	}
	return [][]string{{w.tool(f, ""), "-t", "nat", "-F"}, {w.tool(f, ""), "-t", "nat", "-F", "PREROUTING"}}
}

// emptyTable is a table as iptables leaves it behind once somebody looked at it.
var emptyTable = regexp.MustCompile(`(?m)^\*\w+\n(:\w+ ACCEPT\n)*COMMIT\n`)

// rulesLeft is save without tables in which there is nothing.
func (w *world) rulesLeft(t *testing.T, f proxy.Family) string {
	t.Helper()
	return emptyTable.ReplaceAllString(w.save(t, f), "")
}

// leaveForeignRules makes the node's tables as other software might have them, and remembers that.
func (w *world) leaveForeignRules(t *testing.T) {
	t.Helper()
	w.before = map[string]string{}
	for _, f := range proxy.Families {
		for _, rule := range []string{
			"-t nat -N FOREIGN",
			"-t nat -A FOREIGN -p tcp --dport 9 -j RETURN",
			"-t nat -A PREROUTING -j FOREIGN",
			"-A INPUT -p tcp --dport 9 -j DROP",
			"-A FORWARD -p tcp --dport 9 -j DROP",
			"-t mangle -A POSTROUTING -p tcp --dport 9 -j MARK --set-xmark 0x10/0x10",
		} {
			if _, err := w.Node.Run(w.tool(f, ""), strings.Fields(rule)...); err != nil {
				t.Fatal(err)
			}
		}
		w.before[f.String()] = w.rulesLeft(t, f)
	}
}

// wantUntouched checks that the tables are as they were before Sluice came.
func (w *world) wantUntouched(t *testing.T) error {
	for _, f := range proxy.Families {
		if now := w.rulesLeft(t, f); now != w.before[f.String()] {
			return fmt.Errorf("%v rules changed:\n%s\nbefore:\n%s", f, now, w.before[f.String()])
		}
	}
	return nil
}
