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
	"sync"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// Config says how a Runner works. The zero value is usable.
type Config struct {
	// Backend to use; empty is Auto.
	Backend Backend

	// Prefix of the names of our chains; empty is DefaultPrefix. Watch guards chains of that name, and
	// jumps to them.
	Prefix string

	// Wait is how long to wait for the lock of the legacy backend, rounded up to seconds; 0 is five of them.
	Wait time.Duration

	// Timeout limits each run of a program, waiting for the lock not included; 0 is two minutes.
	Timeout time.Duration

	// ProbeInterval is how often Watch looks at tables of the legacy backend; 0 is one second.
	ProbeInterval time.Duration
}

func (cfg Config) withDefaults() Config {
	if cfg.Backend == "" {
		cfg.Backend = Auto
	}
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.Wait <= 0 {
		cfg.Wait = 5 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.ProbeInterval <= 0 {
		cfg.ProbeInterval = time.Second
	}
	return cfg
}

// Runner is the iptables of the network namespace of whoever calls it: programs inherit the
// namespace of the calling thread. As an Interface it is for one goroutine; Watch may run beside it
// in another.
type Runner struct {
	cfg    Config
	family proxy.Family
	tools  tools
	lister *iptables.IPTables

	children nfwatch.Children

	// mu keeps Watch from comparing the kernel with the ledger while one of the two is being
	// written.
	mu     sync.Mutex
	ledger *ledger
	sizes  *sizes // nil while nobody watches tables of the legacy backend
}

var _ Interface = (*Runner)(nil)

// New finds the programs of a family and, if the backend is Auto, the backend. It changes nothing.
func New(family proxy.Family, cfg Config) (*Runner, error) {
	cfg = cfg.withDefaults()
	if cfg.Backend != Auto && !slices.Contains(Backends[:], cfg.Backend) {
		return nil, fmt.Errorf("backend %q is none of %s, %s and %s", cfg.Backend, Auto, NFT, Legacy)
	}
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Timeout)
	defer cancel()
	if cfg.Backend == Auto {
		backend, err := Detect(ctx, family)
		if err != nil {
			return nil, err
		}
		cfg.Backend = backend
	}
	found, err := findTools(ctx, family, cfg.Backend)
	if err != nil {
		return nil, fmt.Errorf("%s of backend %s: %w", command(family), cfg.Backend, err)
	}
	protocol := iptables.ProtocolIPv4
	if family == proxy.IPv6 {
		protocol = iptables.ProtocolIPv6
	}
	lister, err := iptables.New(iptables.IPFamily(protocol), iptables.Path(found.main), iptables.Timeout(seconds(cfg.Wait)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", found.main, err)
	}
	return &Runner{
		cfg: cfg, family: family, tools: found, lister: lister, ledger: newLedger(cfg.Prefix),
		children: nfwatch.Children{Program: isOurs},
	}, nil
}

// isOurs tells whether a program of that name can be one that we started: "iptables", unlike "iptables-restore", is not.
func isOurs(program string) bool { return strings.Contains(program, "tables-") }

// seconds rounds up: half a second of waiting is not none.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// Backend is NFT or Legacy.
func (r *Runner) Backend() Backend { return r.cfg.Backend }

// Family is the one that New was given.
func (r *Runner) Family() proxy.Family { return r.family }

// Restore implements Interface.
func (r *Runner) Restore(ctx context.Context, input []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.restore(ctx, input)
}

// restore wants r.mu.
func (r *Runner) restore(ctx context.Context, input []byte) error {
	err := r.runRestore(ctx, input)
	if err != nil {
		r.ledger.doubtful(input)
	} else {
		r.ledger.record(input)
	}
	r.sizes.note(r.ledger)
	return err
}

func (r *Runner) runRestore(ctx context.Context, input []byte) error {
	limited, cancel := r.limit(ctx)
	defer cancel()
	cmd := exec.CommandContext(limited, r.tools.restore, "--noflush", "-w", strconv.Itoa(seconds(r.cfg.Wait)))
	cmd.Stdin = bytes.NewReader(input)
	output, err := r.run(cmd)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", r.tools.restore, ctx.Err())
	case limited.Err() != nil:
		return &RestoreError{Resource: true, Output: output, Err: limited.Err()}
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("run %s: %w", r.tools.restore, err)
	}
	if !exit.Exited() {
		// Killed, most likely for want of memory: it has refused nothing.
		return &RestoreError{Resource: true, Output: output, Err: err}
	}
	return refusal(input, output, err)
}

// limit gives a program its time.
func (r *Runner) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.cfg.Timeout+r.cfg.Wait)
}

// run runs a program that writes to the kernel, and gives what it said.
func (r *Runner) run(cmd *exec.Cmd) (string, error) {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = time.Second
	if err := r.children.Start(cmd); err != nil {
		return "", err
	}
	err := wait(cmd)
	return output.String(), err
}

// wait waits for a program. One that succeeded did its work even if its pipes outlive it: a child of
// another thread holds a copy of them until it executes its own program.
func wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

// Chains implements Interface.
func (r *Runner) Chains(ctx context.Context, table, prefix string) (map[string]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.sizes.now(table)
	found, err := r.save(ctx, table, prefix)
	if err != nil {
		return nil, err
	}
	if prefix == r.cfg.Prefix {
		r.ledger.know(table, found)
		// The size from before: a change meanwhile shows at the next look.
		r.sizes.take(table, before, r.ledger)
	}
	return found.clone().chains, nil
}

// save reads a table. It does not bring a table into being.
func (r *Runner) save(ctx context.Context, table, prefix string) (contents, error) {
	limited, cancel := r.limit(ctx)
	defer cancel()
	return r.tools.list(limited, r.family, table, prefix)
}
