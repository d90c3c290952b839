package cluster

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
)

// tool is the name of an iptables program of the world's backend.
func (w *world) tool(f proxy.Family, suffix string) string { return w.mode.Tool(f, suffix) }

// save is all that the node has in which a mode may have something, without counters.
func (w *world) save(t *testing.T, f proxy.Family) string {
	t.Helper()
	out, err := w.run(w.tool(f, "save"))
	if err != nil {
		t.Fatal(err)
	}
	if w.kernel.table != "" {
		table, err := w.listTable(f)
		if err != nil {
			t.Fatal(err)
		}
		out += table
	}
	if w.kernel.lists != nil {
		for _, command := range w.kernel.lists(f) {
			list, err := w.run(command)
			if err != nil {
				t.Fatal(err)
			}
			out += list
		}
	}
	return passing.ReplaceAllString(out, "")
}

// passing is what says nothing: comments, counters, and rules of the kernel whose priorities look like NodePorts.
var passing = regexp.MustCompile(`(?m)^#.*\n| \[\d+:\d+\]|^3276[67]:.*\n`)

// awaitSettled waits until nothing of the past is left that will go by itself.
func (w *world) awaitSettled(t *testing.T) {
	t.Helper()
	for _, f := range proxy.Families {
		eventually(t, fmt.Sprintf("%v is settled", f), func() error {
			if all := w.save(t, f); w.kernel.unsettled != "" && strings.Contains(all, w.kernel.unsettled) {
				return errors.New(all)
			}
			return nil
		})
	}
}

// emptyTable is a table as iptables leaves it behind once somebody looked at it.
var emptyTable = regexp.MustCompile(`(?m)^\*\w+\n(:\w+ ACCEPT\n)*COMMIT\n`)

// rulesLeft is save without tables in which there is nothing.
func (w *world) rulesLeft(t *testing.T, f proxy.Family) string {
	t.Helper()
	return emptyTable.ReplaceAllString(w.save(t, f), "")
}

// foreignNAT are rules of others in a table that is flushed in passing.
var foreignNAT = []string{"-t nat -A FOREIGN -p tcp --dport 9 -j RETURN", "-t nat -A PREROUTING -j FOREIGN"}

// leaveForeignRules makes the node's tables as other software might have them, and remembers that.
func (w *world) leaveForeignRules(t *testing.T) {
	t.Helper()
	w.before = map[string]string{}
	for _, f := range proxy.Families {
		for _, rule := range append([]string{
			"-t nat -N FOREIGN",
			"-A INPUT -p tcp --dport 9 -j DROP",
			"-A FORWARD -p tcp --dport 9 -j DROP",
			"-t mangle -A POSTROUTING -p tcp --dport 9 -j MARK --set-xmark 0x10/0x10",
		}, foreignNAT...) {
			if _, err := w.run(w.tool(f, "") + " " + rule); err != nil {
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
