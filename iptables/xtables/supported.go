package xtables

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// ErrNotFound says that a program is not installed.
var ErrNotFound = exec.ErrNotFound

// feature is a match or target without which the mode cannot work, and a rule that uses it.
type feature struct {
	name, table, rule string
}

// features lists them; ADDRESS stands for one of the family. What only some Services need is not among them, such as the
// match recent of affinity: without it these are set aside.
var features = []feature{
	{"match comment", "nat", "-m comment --comment probe -j RETURN"},
	{"match tcp", "nat", "-p tcp -m tcp --dport 80:81 -j RETURN"},
	{"match udp", "nat", "-p udp -m udp --dport 53 -j RETURN"},
	{"match addrtype", "nat", "-m addrtype --dst-type LOCAL -j RETURN"},
	{"match addrtype in table filter", "filter", "-m addrtype ! --dst-type LOCAL -j RETURN"},
	{"match statistic", "nat", "-m statistic --mode random --probability 0.5000000000 -j RETURN"},
	{"match mark", "nat", "-m mark ! --mark 0x4000/0x4000 -j RETURN"},
	{"match conntrack", "filter", "-m conntrack --ctstate NEW -j RETURN"},
	{"match comment in table filter", "filter", "-m comment --comment probe -j RETURN"},
	{"target MARK", "nat", "-j MARK --set-xmark 0x4000/0x4000"},
	{"target DNAT", "nat", "-p tcp -m tcp -j DNAT --to-destination ADDRESS"},
	{"target MASQUERADE --random-fully", "nat", "-j MASQUERADE --random-fully"},
	{"target REJECT", "filter", "-j REJECT"},
}

// probeChain is never left behind, and never reached by a packet.
const probeChain = "PROBE"

// Supported says what this node lacks to run the rules of the mode, or nil. It loads and removes a chain
// that nothing leads to, since neither the tools nor --test know what the kernel can do.
func (r *Runner) Supported(ctx context.Context) error {
	err := r.probe(ctx, features)
	var refused *RestoreError
	if err == nil || !errors.As(err, &refused) || refused.Resource {
		return err
	}
	missing := []error{}
	for _, f := range features {
		if err := r.probe(ctx, []feature{f}); err != nil {
			missing = append(missing, fmt.Errorf("%s of %s is missing: %w", f.name, r.tools.main, err))
		}
	}
	return errors.Join(missing...)
}

// Accepts tells whether this node can load a rule, given as arguments, into a chain of a table: nil, or why not.
func (r *Runner) Accepts(ctx context.Context, table, rule string) error {
	return r.probe(ctx, []feature{{"", table, rule}})
}

// probe loads rules for a moment.
func (r *Runner) probe(ctx context.Context, features []feature) error {
	address := "192.0.2.1:80"
	if r.family == proxy.IPv6 {
		address = "[2001:db8::1]:80"
	}
	chain := r.cfg.Prefix + probeChain
	load, unload := tableWriter{}, tableWriter{}
	for _, f := range features {
		if _, ok := load.lines[f.table]; !ok {
			load.add(f.table, ":"+chain+" - [0:0]")
			unload.add(f.table, "-F "+chain)
			unload.add(f.table, "-X "+chain)
		}
		load.add(f.table, "-A "+chain+" "+strings.ReplaceAll(f.rule, "ADDRESS", address))
	}
	// Not by Restore: the ledger need not know of a chain that is gone again.
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.sizes.note(r.ledger)
	return r.runRestore(ctx, append(load.bytes(), unload.bytes()...))
}
