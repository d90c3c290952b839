package iptables

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// Name is what selects the mode.
const Name = "iptables"

// Config says how the mode works. The zero value is usable.
type Config struct {
	// Backend to use; empty is xtables.Auto.
	Backend xtables.Backend

	// DropInvalid drops forwarded packets that connection tracking cannot place. Without it a late
	// segment can pass untranslated and end a connection; with the kernel's tcp_be_liberal, such
	// segments are not invalid and may pass.
	DropInvalid bool

	// Wait is how long to wait for the lock of the legacy backend; 0 is the default of xtables.
	Wait time.Duration

	counts bool // the node has what counts packets, see account.go
}

// batchNFT limits the chains of one commit in backend nft, whose tool looks through all chains of a commit for
// every rule of it. Backend legacy writes a whole table for every commit, the fewer the better.
const batchNFT = 1000

// maxProbes is how often it is tried to find out what the node supports while something is in the way, such as the
// lock of the legacy backend, for which each try waits.
const maxProbes = 5

// NewMode makes the mode. It touches nothing yet.
func NewMode(cfg Config) proxy.Mode { return mode{cfg, &account{}} }

type mode struct {
	cfg     Config
	account *account
}

// Name implements proxy.Mode.
func (mode) Name() string { return Name }

// Supported implements proxy.Mode.
func (m mode) Supported(ctx context.Context, family proxy.Family) error {
	ipt, err := m.open(family, m.cfg.Backend)
	if err != nil {
		return err
	}
	return patiently(func() error { return ipt.Supported(ctx) })
}

// patiently tries again what something stood in the way of.
func patiently(try func() error) error {
	for tries := 1; ; tries++ {
		err := try()
		if refused, ok := errors.AsType[*xtables.RestoreError](err); !ok || !refused.Resource || tries == maxProbes {
			return err
		}
	}
}

// New implements proxy.Mode.
func (m mode) New(family proxy.Family) (proxy.Dataplane, error) {
	ipt, err := m.open(family, m.cfg.Backend)
	if err != nil {
		return nil, err
	}
	cfg := m.cfg
	cfg.counts = m.account.counts(family)
	d := newDataplane(cfg, ipt)
	d.inspector = ipt
	if ipt.Backend() == xtables.NFT {
		d.batch = batchNFT
	} else {
		d.none = nothingIn(longLeaf)
	}
	d.watch = func(ctx context.Context, doubt func(string)) error {
		return ipt.Watch(ctx, []string{nat, filter}, doubt)
	}
	d.leave = func(ctx context.Context) error {
		return m.cleanup(ctx, family, func(b xtables.Backend) bool { return b != ipt.Backend() })
	}
	return d, nil
}

func (m mode) open(family proxy.Family, backend xtables.Backend) (*xtables.Runner, error) {
	ipt, err := xtables.New(family, xtables.Config{Backend: backend, Wait: m.cfg.Wait})
	if err != nil {
		return nil, fmt.Errorf("iptables mode, %v: %w", family, err)
	}
	return ipt, nil
}

// Cleanup implements proxy.Mode, in both backends: an earlier start may have used the other one.
func (m mode) Cleanup(ctx context.Context) error {
	var errs []error
	for _, family := range proxy.Families {
		errs = append(errs, m.cleanup(ctx, family, func(xtables.Backend) bool { return true }))
	}
	if errors.Join(errs...) == nil {
		errs = append(errs, objects.RemoveReleased(ctx)) // rules of ours used them
	}
	return errors.Join(errs...)
}

func (m mode) cleanup(ctx context.Context, family proxy.Family, concerns func(xtables.Backend) bool) error {
	var errs []error
	for _, backend := range xtables.Backends {
		if !concerns(backend) {
			continue
		}
		ipt, err := m.open(family, backend)
		if err != nil {
			// A backend without tools has no rules of ours, nor has one that the kernel knows nothing of.
			continue
		}
		if err := cleanup(ctx, ipt); err != nil && !xtables.NoKernel(err) {
			errs = append(errs, fmt.Errorf("clean up %v, backend %s: %w", family, backend, err))
		}
	}
	return errors.Join(errs...)
}

// cleanup removes our jumps, then our chains. It leaves chains that rules of others lead to, empty.
func cleanup(ctx context.Context, ipt xtables.Interface) error {
	if err := ipt.RemoveJumps(ctx, xtables.DefaultPrefix); err != nil {
		return err
	}
	d := newDataplane(Config{}, ipt)
	for _, table := range []string{nat, filter} {
		present, err := ipt.Chains(ctx, table, xtables.DefaultPrefix)
		if err != nil {
			return fmt.Errorf("list chains of table %s: %w", table, err)
		}
		if len(present) == 0 {
			continue
		}
		s := newSection(table)
		for name := range present {
			s.remove(name)
		}
		if err := d.restore(ctx, plan{s}, true); err != nil {
			return fmt.Errorf("empty chains of table %s: %w", table, err)
		}
	}
	return errors.Join(d.sweep(ctx), removeMark(ctx, ipt))
}

// removeMark deletes the chain for marking unless kube-proxy, or a kubelet before 1.28, may own it, or rules lead to it.
func removeMark(ctx context.Context, ipt xtables.Interface) error {
	present, err := ipt.Chains(ctx, nat, "KUBE-")
	if err != nil {
		return fmt.Errorf("list chains of table %s: %w", nat, err)
	}
	if !markIsOurs(present) {
		return nil
	}
	s := newSection(nat)
	s.remove(markChain)
	input := plan{s}.input(how{})
	if err := ipt.Restore(ctx, input); err != nil {
		if _, used := errors.AsType[*refusal](refusalOf(err, input)); used {
			return nil
		}
		return fmt.Errorf("delete %s: %w", markChain, err)
	}
	return nil
}
