package xtables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// Rule is a rule as iptables shows it, "-A CHAIN …", and how many packets it took.
type Rule struct {
	Text           string
	Packets, Bytes uint64
}

// fewChains is how many chains of backend nft are listed one by one, which takes a run of iptables each. More of them are looked for
// in the whole table, as all chains of backend legacy are: its kernel gives the table as a whole only.
const fewChains = 12

// atOnce is how many programs list chains at the same time.
const atOnce = 4

// Show is Inspect for the chains and jumps of want alone: what else there is is no difference. It gives the rules of these chains
// and those that lead to them, with what they took.
func (r *Runner) Show(ctx context.Context, want Wanted) ([]Rule, []proxy.Difference, error) {
	ctx, cancel := r.limit(ctx)
	defer cancel()
	if exists, err := r.tools.holds(r.family, want.Table); err != nil {
		return nil, nil, err
	} else if !exists {
		return nil, []proxy.Difference{{Kind: proxy.Missing, Object: "table " + want.Table}}, nil
	}
	i := newInspection(r.family, r.cfg.Prefix, want)
	i.partial = true
	var err error
	if r.cfg.Backend == NFT && len(want.Chains) <= fewChains {
		err = r.listSome(ctx, i)
	} else {
		err = r.tools.stream(ctx, want.Table, i.parse, "-c")
	}
	if errors.Is(err, errIncompatible) {
		return nil, nil, fmt.Errorf("table %s holds what iptables cannot show; sluice diff tells more", want.Table)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list chains of table %s: %w", want.Table, err)
	}
	return i.shown, i.differences, nil
}

// listSome lists the chains one by one, in the form of iptables-save.
func (r *Runner) listSome(ctx context.Context, i *inspection) error {
	chains := i.chains()
	outputs := r.tools.listEach(ctx, i.want.Table, chains)
	var save strings.Builder
	for n, chain := range chains {
		text, err := outputs[n].text, outputs[n].err
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && strings.Contains(err.Error(), incompatible):
			return errIncompatible
		case err != nil && strings.HasPrefix(chain, r.cfg.Prefix):
			continue // it is not there
		case err != nil:
			return err
		}
		fmt.Fprintf(&save, ":%s - [0:0]\n%s", chain, text)
	}
	return i.parse(strings.NewReader(save.String()))
}

// output is what a program said.
type output struct {
	text string
	err  error
}

// listEach lists chains of backend nft, which has no lock, some at the same time. All programs are started by the calling thread: it may
// be in a network namespace of its own.
func (t tools) listEach(ctx context.Context, table string, chains []string) []output {
	outputs := make([]output, len(chains))
	running := make([]func(), 0, len(chains))
	for n, chain := range chains {
		if n >= atOnce {
			running[n-atOnce]()
		}
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, t.main, "-t", table, "-v", "-S", chain)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.WaitDelay = time.Second
		err := cmd.Start()
		running = append(running, func() {
			if err == nil {
				err = wait(cmd)
			}
			if err != nil {
				err = fmt.Errorf("list chain %s: %w: %s", chain, err, strings.TrimSpace(stderr.String()))
			}
			outputs[n] = output{stdout.String(), err}
		})
	}
	for _, end := range running[max(0, len(running)-atOnce):] {
		end()
	}
	return outputs
}

// chains are those that matter.
func (i *inspection) chains() []string {
	var all []string
	for _, j := range i.want.Jumps {
		if !slices.Contains(all, j.Chain) {
			all = append(all, j.Chain)
		}
	}
	return append(all, sortedKeys(i.want.Chains)...)
}

// cutCount takes what a rule took from a line: "[1:60] -A …", or "-A … -c 1 60 …".
func cutCount(line string) Rule {
	if rest, ok := strings.CutPrefix(line, "["); ok {
		count, rule, _ := strings.Cut(rest, "] ")
		packets, bytes, _ := strings.Cut(count, ":")
		return newRule(rule, packets, bytes)
	}
	before, after, ok := strings.Cut(line, " -c ")
	if !ok {
		return Rule{Text: line}
	}
	words := strings.SplitN(after, " ", 3)
	if len(words) < 2 {
		return Rule{Text: line}
	}
	rule := newRule(before, words[0], words[1])
	if len(words) == 3 {
		rule.Text += " " + words[2]
	}
	return rule
}

func newRule(text, packets, bytes string) Rule {
	p, err1 := strconv.ParseUint(packets, 10, 64)
	b, err2 := strconv.ParseUint(bytes, 10, 64)
	if err1 != nil || err2 != nil {
		return Rule{Text: text}
	}
	return Rule{text, p, b}
}
