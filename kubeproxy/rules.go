package kubeproxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/sluice-proxy/sluice/iptables/acct"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Rules are the chains of modes iptables and ipvs, in both backends, and the rules that lead to them.
type Rules struct{}

// Traces names what Remove removes, an object each. After an error it names what it found.
func (Rules) Traces(ctx context.Context) (all []string, err error) {
	err = eachTable(ctx, func(ipt *xtables.Runner, table string, s xtables.Survey) error {
		for _, what := range s.Traces(theirs(table, s)) {
			all = append(all, fmt.Sprintf("%v, table %s: %s", ipt, table, what))
		}
		return nil
	})
	return all, err
}

// Remove goes on after an error, so that as little as possible stays.
func (Rules) Remove(ctx context.Context) error {
	return eachTable(ctx, func(ipt *xtables.Runner, table string, s xtables.Survey) error {
		return ipt.RemoveChains(ctx, table, theirs(table, s))
	})
}

// eachTable calls f with every table in which kube-proxy may have chains. Where there are no programs of a backend, or nothing of
// it in the kernel, there are none.
func eachTable(ctx context.Context, f func(ipt *xtables.Runner, table string, s xtables.Survey) error) error {
	var errs []error
	for _, family := range proxy.Families {
		for _, backend := range xtables.Backends {
			ipt, err := xtables.New(family, xtables.Config{Backend: backend})
			if err != nil {
				continue
			}
			for _, table := range tables {
				s, err := ipt.Survey(ctx, table)
				if err == nil {
					err = f(ipt, table, s)
				}
				if err != nil && !xtables.NoKernel(err) {
					errs = append(errs, fmt.Errorf("%v: %w", ipt, err))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// Objects are what its rules in mode iptables count packets in. Rules use them as long as they are there.
type Objects struct{}

var objects = acct.Set{"ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"}

// Traces names what Remove removes, an object each. After an error it names what it found.
func (Objects) Traces(context.Context) ([]string, error) { return objects.Traces() }

// Remove goes on after an error.
func (Objects) Remove(ctx context.Context) error { return objects.RemoveReleased(ctx) }

// Tables are those of mode nftables.
type Tables struct{}

// schema has the name of both.
var schema = &nft.Schema{Table: "kube-proxy"}

func (Tables) all() []*nft.Runner {
	var all []*nft.Runner
	for _, f := range proxy.Families {
		all = append(all, nft.NewRunner(f, schema))
	}
	return all
}

// Traces names what Remove removes, an object each. After an error it names what it found.
func (t Tables) Traces(context.Context) ([]string, error) { return nft.Traces(t.all()) }

// Remove goes on after an error.
func (t Tables) Remove(ctx context.Context) error { return nft.RemoveAll(ctx, t.all()) }
