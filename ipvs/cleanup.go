package ipvs

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// remains are what the mode has of a family in the kernel.
type remains struct {
	family  proxy.Family
	table   bool            // there is one
	servers []kernel.Server // that are ours
	others  int             // other virtual servers, or such that kube-proxy has by now
	unknown bool            // nothing says whether some of them are ours
}

// used tells whether the mode was in use.
func (r remains) used() bool { return r.table || len(r.servers) > 0 }

func findRemains(ctx context.Context, f proxy.Family) (remains, error) {
	r := remains{family: f}
	found, err := nft.NewRunner(f, schema).Find(ctx)
	if err != nil {
		return r, err
	}
	servers := kernel.NewIPVS(f)
	all, err := servers.ListIfLoaded(ctx)
	if err != nil {
		return r, err
	}
	l := ledgerOf(found)
	ours, err := l.ours(ctx, servers, all)
	if err != nil {
		return r, err
	}
	taken, err := kernel.KubeProxyHasAddresses(f)
	if err != nil {
		return r, err
	}
	r.table = found != nil
	for _, s := range all {
		// With addresses on its interface, kube-proxy serves with those that have one, or will remove them.
		if ours(s.ID) && (s.ID.Mark != 0 || !taken) {
			r.servers = append(r.servers, s)
		} else {
			r.others++
		}
	}
	r.unknown = l.lost && r.used() && r.others > 0
	return r, nil
}

// Owned tells which virtual servers of a family are Sluice's.
func Owned(ctx context.Context, f proxy.Family) (func(kernel.ID) bool, error) {
	found, err := nft.NewRunner(f, schema).Find(ctx)
	if err != nil {
		return nil, err
	}
	l := ledgerOf(found)
	if found != nil && l.lost {
		return nil, fmt.Errorf("table %s is that of another version of Sluice, so nothing says which virtual servers are Sluice's", Table)
	}
	return l.owns, nil
}

// WantsCompatInterface tells whether the mode is in use on a node where it wants an interface kube-ipvs0.
func WantsCompatInterface(context.Context) (bool, error) {
	for _, f := range proxy.Families {
		if there, err := nft.NewRunner(f, schema).Exists(); err != nil {
			return false, err
		} else if there {
			return kernel.HasCalico()
		}
	}
	return false, nil
}

// tables are all of the mode.
func tables(f proxy.Family) []*nft.Runner {
	return []*nft.Runner{nft.NewRunner(f, schema), nft.NewProbe(f, schema)}
}

// Traces implements proxy.Mode.
func (m mode) Traces(ctx context.Context) (all []string, err error) {
	var errs []error
	var both []remains
	for _, f := range proxy.Families {
		r, err := findRemains(ctx, f)
		if err != nil {
			errs = append(errs, fmt.Errorf("look for what is there for %v: %w", f, err))
			continue
		}
		both = append(both, r)
		for _, s := range r.servers {
			all = append(all, fmt.Sprintf("ipvs: virtual server %v", s.ID))
		}
		for _, find := range []func() ([]string, error){kernel.NewRouter(f).Traces, func() ([]string, error) { return nft.Traces(tables(f)) }} {
			found, err := find()
			all, errs = append(all, found...), append(errs, err)
		}
	}
	compat, err := kernel.FindCompatInterface()
	if errs = append(errs, err); compat.Ours && len(compat.Addrs) == 0 {
		all = append(all, "interface "+kernel.CompatName)
	}
	altered, _, err := altered(both, m.cfg.Sysctls)
	for _, c := range altered {
		all = append(all, fmt.Sprintf("value %d of kernel parameter %s, which gets its usual value %d", c.Was, c.File, c.Value))
	}
	return all, errors.Join(append(errs, err)...)
}

// altered are the kernel parameters to set back: none unless the mode was in use, and nobody else uses IPVS.
func altered(both []remains, tree sysctl.Tree) (altered, fixed []kernel.Change, err error) {
	used := false
	for _, r := range both {
		if used = used || r.used(); r.others > 0 {
			return nil, nil, nil
		}
	}
	if !used {
		return nil, nil, nil
	}
	return kernel.Altered(tree)
}

// Cleanup implements proxy.Mode.
func (m mode) Cleanup(ctx context.Context) error {
	var errs []error
	for _, f := range proxy.Families {
		if err := cleanup(ctx, f, m.cfg.Sysctls); err != nil {
			errs = append(errs, fmt.Errorf("remove what is there for %v: %w", f, err))
		}
	}
	return errors.Join(append(errs, kernel.RemoveCompatInterface())...)
}

// cleanup removes what the mode has of a family. The table, which says which virtual servers are ours, goes last: should anything
// fail, the next try still knows them.
func cleanup(ctx context.Context, f proxy.Family, tree sysctl.Tree) error {
	r, err := findRemains(ctx, f)
	if r.unknown {
		klog.FromContext(ctx).Info("Left virtual servers of which nothing says whether they are Sluice's", "family", f, "virtualServers", r.others)
	}
	if err == nil {
		err = errors.Join(r.remove(ctx), kernel.NewRouter(f).Remove())
	}
	if err != nil {
		return err
	}
	var errs []error
	if r.used() {
		errs = append(errs, setBack(ctx, tree))
	}
	return errors.Join(append(errs, nft.RemoveAll(ctx, tables(f)))...)
}

// remove removes the virtual servers.
func (r remains) remove(ctx context.Context) error {
	var commands []kernel.Command
	for _, s := range r.servers {
		commands = append(commands, kernel.Command{Op: kernel.DeleteServer, Server: s})
	}
	refused, err := kernel.NewIPVS(r.family).Run(ctx, commands)
	errs := []error{err}
	for _, x := range refused {
		errs = append(errs, x)
	}
	return errors.Join(errs...)
}

// setBack gives kernel parameters their usual values if there is no virtual server any more. Those that cannot be written stay:
// they do no harm then.
func setBack(ctx context.Context, tree sysctl.Tree) error {
	for _, f := range proxy.Families {
		if left, err := kernel.NewIPVS(f).ListIfLoaded(ctx); err != nil || len(left) > 0 {
			return err
		}
	}
	altered, fixed, err := kernel.Altered(tree)
	if err != nil {
		return err
	}
	for _, c := range fixed {
		klog.FromContext(ctx).Info("Left kernel parameter as it is, it cannot be written here", "file", c.File, "value", c.Was, "usual", c.Value)
	}
	return kernel.Make(tree, altered)
}
