package xtables

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
)

// Survey is what a table holds, as far as it matters to whoever tidies up.
type Survey struct {
	Chains map[string]int // those that are not built in, with the number of their rules
	Leads  []Lead         // the rules that lead to them
}

// Lead is a rule that leads to a chain that is not built in.
type Lead struct {
	Chain, Target string

	// Rule is the rule as iptables-save shows it. Where it cannot, no more of it is known than where it leads.
	Rule string
}

// Survey reads a table, whoever made it. One that does not exist is empty, and stays so.
func (r *Runner) Survey(ctx context.Context, table string) (Survey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := r.limit(ctx)
	defer cancel()
	s := newSurvey()
	if exists, err := r.tools.holds(r.family, table); err != nil || !exists {
		return s, err
	}
	err := r.tools.stream(ctx, table, s.parse)
	if errors.Is(err, errIncompatible) {
		return r.surveyNative(ctx, table)
	}
	if err != nil {
		return s, fmt.Errorf("%s -t %s: %w", r.tools.saver, table, err)
	}
	return s, nil
}

func newSurvey() Survey { return Survey{Chains: map[string]int{}} }

// parse reads what iptables-save prints about one table: first all chains, then all rules.
func (s *Survey) parse(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#") && strings.Contains(line, incompatible):
			return fmt.Errorf("%w: %s", errIncompatible, line)
		case strings.HasPrefix(line, ":"):
			if name, policy, _ := strings.Cut(line[1:], " "); strings.HasPrefix(policy, "-") {
				s.Chains[name] = 0
			}
		case strings.HasPrefix(line, "-A "):
			chain, args, _ := strings.Cut(line[3:], " ")
			s.add(Lead{chain, targetOf(args), line})
		}
	}
	return lines.Err()
}

// add takes note of a rule.
func (s *Survey) add(l Lead) {
	if _, ok := s.Chains[l.Chain]; ok {
		s.Chains[l.Chain]++
	}
	if _, ok := s.Chains[l.Target]; ok {
		s.Leads = append(s.Leads, l)
	}
}

// surveyNative asks the kernel itself.
func (r *Runner) surveyNative(ctx context.Context, table string) (Survey, error) {
	var s Survey
	err := undisturbed(ctx, func() error {
		s = newSurvey()
		err := dump(ctx, r.family, unix.NFT_MSG_GETCHAIN, nil, func(m nfwatch.Message) {
			if m.Text(unix.NFTA_CHAIN_TABLE) == table && m.Attr(unix.NFTA_CHAIN_HOOK) == nil {
				s.Chains[m.Text(unix.NFTA_CHAIN_NAME)] = 0
			}
		})
		if err != nil {
			return err
		}
		return dumpRules(ctx, r.family, table, "", func(m nfwatch.Message) {
			rule := nativeRule{chain: m.Text(unix.NFTA_RULE_CHAIN), target: targetOfRule(m)}
			s.add(Lead{rule.chain, rule.target, rule.String()})
		})
	})
	if err != nil {
		return s, fmt.Errorf("dump table %s: %w", table, err)
	}
	return s, nil
}

// wantedByOthers are the chains of which ours tells that others' chains, which are not built in, have rules that lead to.
func (s Survey) wantedByOthers(ours func(chain string) bool) map[string]bool {
	wanted := map[string]bool{}
	for _, l := range s.Leads {
		if _, custom := s.Chains[l.Chain]; custom && !ours(l.Chain) && ours(l.Target) {
			wanted[l.Target] = true
		}
	}
	return wanted
}

// Traces names what RemoveChains removes, an object each.
func (s Survey) Traces(ours func(chain string) bool) []string {
	var all []string
	for _, l := range s.Leads {
		if _, custom := s.Chains[l.Chain]; !custom && ours(l.Target) {
			all = append(all, "rule "+l.Rule)
		}
	}
	wanted := s.wantedByOthers(ours)
	for _, name := range slices.Sorted(maps.Keys(s.Chains)) {
		switch {
		case !ours(name):
		case !wanted[name]:
			all = append(all, "chain "+name)
		case s.Chains[name] > 0:
			all = append(all, "rules of chain "+name+", which stays, as rules of others lead to it")
		}
	}
	return all
}

// maxRemoved is how many chains of backend nft a commit empties or deletes: its tool looks through all chains of a commit
// for each line of it.
const maxRemoved = 1000

// RemoveChains removes the chains of which ours tells, and the rules of built-in chains that lead to them, which go first.
// A chain to which rules of others lead is emptied and stays.
func (r *Runner) RemoveChains(ctx context.Context, table string, ours func(chain string) bool) error {
	s, err := r.Survey(ctx, table)
	if err == nil {
		err = r.removeJumps(ctx, table, s.sources(ours), ours)
	}
	if err != nil {
		return err
	}
	wanted := s.wantedByOthers(ours)
	var empty, remove []string
	for _, name := range slices.Sorted(maps.Keys(s.Chains)) {
		if ours(name) {
			empty = append(empty, ":"+name+" - [0:0]")
			if !wanted[name] {
				remove = append(remove, "-X "+name)
			}
		}
	}
	for _, lines := range [][]string{empty, remove} { // a chain that a rule leads to cannot be deleted
		if err := r.commit(ctx, table, lines); err != nil {
			return err
		}
	}
	return nil
}

// sources are the built-in chains with rules that lead to chains of which ours tells.
func (s Survey) sources(ours func(chain string) bool) []string {
	var all []string
	for _, l := range s.Leads {
		if _, custom := s.Chains[l.Chain]; !custom && ours(l.Target) && !slices.Contains(all, l.Chain) {
			all = append(all, l.Chain)
		}
	}
	return all
}

// removeJumps deletes the rules of some chains that lead to chains of which ours tells.
func (r *Runner) removeJumps(ctx context.Context, table string, chains []string, ours func(chain string) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var plan edit
	for _, chain := range chains {
		if err := plan.removeJumps(table, chain, ours, r.listRules(ctx)); err != nil {
			return err
		}
	}
	if err := r.edit(ctx, plan); err != nil {
		return fmt.Errorf("remove jumps of table %s: %w", table, err)
	}
	return nil
}

// commit writes lines to a table, in as many commits as suit the backend.
func (r *Runner) commit(ctx context.Context, table string, lines []string) error {
	most := maxRemoved
	if r.Backend() == Legacy { // it writes the whole table for each commit
		most = max(1, len(lines))
	}
	for some := range slices.Chunk(lines, most) {
		var input bytes.Buffer
		fmt.Fprintf(&input, "*%s\n%s\nCOMMIT\n", table, strings.Join(some, "\n"))
		if err := r.Restore(ctx, input.Bytes()); err != nil {
			return fmt.Errorf("remove chains of table %s: %w", table, err)
		}
	}
	return nil
}

// String names the program that shows the tables, with its backend.
func (r *Runner) String() string { return command(r.family) + "-" + string(r.cfg.Backend) }
