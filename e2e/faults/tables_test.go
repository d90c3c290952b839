package faults

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// damage is what another program does to the tables on the node.
type damage struct {
	name string
	do   func(*story)

	// excuses are the kinds of connections of which some must fail until the repair: new ones, and what the kernel
	// stops to translate although it knows the connection, when the last rule of any table nat is gone.
	excuses []kind

	// forgets is set if what the kernel knew of clients is gone, and affinity with it.
	forgets bool

	// cuts is set if connections that are open may end, whenever they are used again.
	cuts bool

	// harmless is set if nothing needs to be mended.
	harmless bool

	on string // a backend of iptables, if the other has nothing of the kind
}

// damaged: what others break is mended at once, and costs connections only until then.
func damaged(s *story) {
	for _, d := range s.kernel.damages {
		if d.on != "" && d.on != s.mode.Backend {
			continue
		}
		repairs := s.repairs(s.T)
		fl := s.load.openFlows()
		over, overCut := s.load.excuse(d.excuses...), func() {}
		if d.cuts {
			overCut = s.load.cut()
		}
		d.do(s)
		eventually(s.T, d.name+": repaired", func() error {
			if !d.harmless && s.repairs(s.T) == repairs {
				return fmt.Errorf("not noticed")
			}
			return nil
		})
		s.awaitRules(s.T, s.before)
		if d.forgets {
			s.load.forget()
		}
		over()
		overCut()
		fl.end(s.load)
		s.Logf("%s: %v repairs, %s", d.name, s.repairs(s.T)-repairs, s.load.failures())
		s.load.pass(2) // repairs that follow each other closely are spread out
	}
}

// rewritten: everything is written anew, again and again, while Services change, and no connection notices. What makes
// Sluice do so is something of others that does no harm.
func rewritten(s *story) {
	repairs := s.repairs(s.T)
	stop := while(s.T, func(ctx context.Context, n int) error {
		s.endpoints(s.T, s.moving, targetPort, s.backends()[n%4])
		return ctx.Err()
	})
	const rounds = 3
	for range rounds {
		s.kernel.litter(s)
		s.awaitGone(s.kernel.littered)
	}
	s.Logf("%d changes of endpoints, %v repairs", stop(), s.repairs(s.T)-repairs)
	if n := s.repairs(s.T) - repairs; n < rounds {
		s.Errorf("%v repairs for %d rounds of damage", n, rounds)
	}
	s.moves(s.T, s.local())
}

// awaitGone waits until the kernel's rules no longer have this text.
func (s *story) awaitGone(text string) {
	s.Helper()
	eventually(s.T, fmt.Sprintf("%q is gone", text), func() error {
		if strings.Contains(s.rules(s.T), text) {
			return fmt.Errorf("it is there")
		}
		return nil
	})
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
