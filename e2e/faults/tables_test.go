package faults

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

// damage is what another program does to the tables on the node.
type damage struct {
	name string
	do   func(*story)

	// excuses are the kinds of connections of which some must fail until the repair: new ones, and what the kernel
	// stops to translate although it knows the connection, when the last rule of any table nat is gone.
	excuses []kind

	// forgets is set if the last rule that refers to a list of clients is gone, and affinity with it.
	forgets bool
	nftOnly bool
}

var damages = []damage{
	{name: "nat flushed", do: func(s *story) { s.iptables(s.T, "-t nat -F") }, excuses: []kind{fresh, sticky}, forgets: true},
	{name: "rule deleted", do: func(s *story) { s.deleteRule(1) }},
	{name: "last rule deleted", do: func(s *story) { s.deleteRule(4) }, excuses: []kind{fresh}},
	{name: "jump deleted", do: func(s *story) { s.iptables(s.T, "-t nat -D PREROUTING 1") }, excuses: []kind{fresh, sticky}},
	{name: "chain deleted", do: deleteChain, excuses: []kind{fresh}},
	{name: "tables deleted", do: deleteTables, excuses: []kind{fresh, long, sticky, stream}, forgets: true, nftOnly: true},
	{name: "ruleset flushed", do: flushRuleset, excuses: []kind{fresh, long, sticky, stream}, forgets: true, nftOnly: true},
}

func deleteTables(s *story) {
	s.nft("delete", "table", "ip", "nat")
	s.nft("delete", "table", "ip6", "nat")
}

func flushRuleset(s *story) { s.nft("flush", "ruleset") }

// damaged: what others break is mended at once, and costs connections only until then.
func damaged(s *story) {
	for _, d := range damages {
		if d.nftOnly && s.backend != "nft" {
			continue
		}
		repairs := s.repairs(s.T)
		fl := s.load.openFlows()
		over := s.load.excuse(d.excuses...)
		d.do(s)
		eventually(s.T, d.name+": repaired", func() error {
			if s.repairs(s.T) == repairs {
				return fmt.Errorf("not noticed")
			}
			return nil
		})
		s.awaitRules(s.T, s.before)
		if d.forgets {
			s.load.forget()
		}
		over()
		fl.end(s.load)
		s.Logf("%s: %v repairs, %s", d.name, s.repairs(s.T)-repairs, s.load.failures())
		s.load.pass(2) // repairs that follow each other closely are spread out
	}
}

func (s *story) nft(args ...string) {
	s.Helper()
	if _, err := s.Node.Run("nft", args...); err != nil {
		s.Fatal(err)
	}
}

// pools are the chains, by family, that choose one of the four backends of web over TCP.
func (s *story) pools() map[proxy.Family]string {
	s.Helper()
	found := map[proxy.Family]string{}
	for line := range strings.Lines(s.before) {
		rule, group, ok := strings.Cut(strings.TrimSpace(line), " --comment \"default/web:tcp cluster IP\" -j SLUICE-INT-")
		for _, f := range proxy.Families {
			if ok && strings.HasPrefix(rule, f.String()+" nat ") {
				found[f] = "SLUICE-CLU-" + group
			}
		}
	}
	if len(found) < len(proxy.Families) {
		s.Fatalf("pools of default/web:tcp: %v", found)
	}
	return found
}

// deleteRule deletes a rule for one of the backends of web.
func (s *story) deleteRule(n int) {
	s.Helper()
	for f, chain := range s.pools() {
		if _, err := s.Node.Run(s.tool(f, ""), "-w", "60", "-t", "nat", "-D", chain, fmt.Sprint(n)); err != nil {
			s.Fatal(err)
		}
	}
}

// deleteChain deletes a chain of web with all that leads to it, as somebody must who wants it gone.
func deleteChain(s *story) {
	for f, chain := range s.pools() {
		prefix := f.String() + " nat "
		script := "*nat\n"
		for line := range strings.Lines(s.before) {
			if rule, ok := strings.CutPrefix(line, prefix); ok && strings.HasSuffix(rule, "-j "+chain+"\n") {
				script += "-D" + strings.TrimPrefix(rule, "-A")
			}
		}
		script += fmt.Sprintf("-F %s\n-X %s\nCOMMIT\n", chain, chain)
		if _, err := s.Node.Run("sh", "-c", fmt.Sprintf("%s --noflush -w 60 <<'END'\n%sEND", s.tool(f, "restore"), script)); err != nil {
			s.Fatal(err)
		}
	}
}

// rewritten: everything is written anew, again and again, while Services change, and no connection notices. What makes
// Sluice do so is a rule that does no harm.
func rewritten(s *story) {
	repairs := s.repairs(s.T)
	stop := while(s.T, func(ctx context.Context, n int) error {
		s.endpoints(s.T, s.moving, targetPort, s.backends()[n%4])
		return ctx.Err()
	})
	const rounds = 3
	for range rounds {
		s.iptables(s.T, "-t nat -A SLUICE-POSTROUTING -j RETURN")
		eventually(s.T, "foreign rule is gone", func() error {
			if strings.Contains(s.rules(s.T), "-A SLUICE-POSTROUTING -j RETURN\n") {
				return fmt.Errorf("it is there")
			}
			return nil
		})
	}
	s.Logf("%d changes of endpoints, %v repairs", stop(), s.repairs(s.T)-repairs)
	if n := s.repairs(s.T) - repairs; n < rounds {
		s.Errorf("%v repairs for %d rounds of damage", n, rounds)
	}
	s.moves(s.T, s.local())
}

// foreign: others may do with their own rules what they like.
func foreign(s *story) {
	s.iptables(s.T, "-t nat -N FOREIGN")
	s.iptables(s.T, "-t nat -A PREROUTING -j FOREIGN")
	before := s.rules(s.T)
	repairs := s.repairs(s.T)
	stop := while(s.T, func(context.Context, int) error {
		s.iptables(s.T, "-t nat -A FOREIGN -p tcp --dport 9 -j RETURN")
		s.iptables(s.T, "-A INPUT -p tcp --dport 9 -j DROP")
		s.iptables(s.T, "-D INPUT -p tcp --dport 9 -j DROP")
		s.iptables(s.T, "-t nat -F FOREIGN")
		return nil
	})
	s.load.pass(4)
	s.Logf("%d rounds of changes to foreign rules", stop())
	if n := s.repairs(s.T) - repairs; n != 0 {
		s.Errorf("%v repairs though nobody touched what is ours", n)
	}
	if diff := cmp.Diff(before, s.rules(s.T)); diff != "" {
		s.Errorf("rules (-want +got):\n%s", diff)
	}
	s.iptables(s.T, "-t nat -D PREROUTING -j FOREIGN")
	s.iptables(s.T, "-t nat -X FOREIGN")
}
