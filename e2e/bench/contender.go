package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// contender is a proxy that takes part.
type contender struct {
	name string
	path string
	args []string // besides those that all get
	// order lists the addresses of one-port Services in the order in which a packet is compared with them.
	order func(n *node, backend string, services []service) ([]netip.Addr, error)
}

func kubeProxy(cfg config) contender {
	return contender{
		name:  "kube-proxy",
		path:  cfg.KubeProxy,
		args:  []string{"--proxy-mode", cfg.Mode.name},
		order: cfg.Mode.order,
	}
}

func sluice(cfg config, backend string) contender {
	return contender{
		name:  "Sluice",
		path:  cfg.Sluice,
		args:  append([]string{"--mode", cfg.Mode.name}, cfg.Mode.flags(backend)...),
		order: addressOrder,
	}
}

// start starts the proxy on a node. Both proxies run with default settings, but for nf_conntrack_max, which
// belongs to the whole machine and is left alone.
func (c contender) start(n *node, cl *cluster, tools string, log *os.File) (*process.Process, error) {
	args := []string{
		"PATH=" + tools + string(os.PathListSeparator) + os.Getenv("PATH"),
		c.path,
		"--kubeconfig", cl.kubeconfig,
		"--hostname-override", nodeName,
		"--cluster-cidr", lab.ClusterCIDR.String(),
		"--conntrack-max-per-core", "0",
	}
	return process.Start(n.Node.Namespace, log, "env", append(args, c.args...)...)
}

// makeTools makes a directory in which plain "iptables" and its kin are of one backend: kube-proxy uses what it
// finds first in PATH.
func makeTools(dir, backend string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	program, err := exec.LookPath("xtables-" + backend + "-multi")
	if err != nil {
		return fmt.Errorf("find the programs of backend %s: %w", backend, err)
	}
	var errs []error
	for _, command := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			errs = append(errs, os.Symlink(program, filepath.Join(dir, command+suffix)))
		}
	}
	return errors.Join(errs...)
}

// chainOrder reads kube-proxy's chain that holds a rule for each address. Its order is another after each sync.
func chainOrder(n *node, backend string, services []service) ([]netip.Addr, error) {
	text, err := n.Node.Run("iptables-"+backend, "-t", "nat", "-S", "KUBE-SERVICES")
	if err != nil {
		return nil, err
	}
	vips := addressSet(services)
	return slices.DeleteFunc(destinations(text), func(a netip.Addr) bool { return !vips[a] }), nil
}

// destinations are the addresses that rules of iptables -S match, in order.
func destinations(rules string) []netip.Addr {
	var list []netip.Addr
	for line := range strings.Lines(rules) {
		words := strings.Fields(line)
		i := slices.Index(words, "-d")
		if i < 0 || i+1 == len(words) {
			continue
		}
		if p, err := netip.ParsePrefix(words[i+1]); err == nil && p.IsSingleIP() {
			list = append(list, p.Addr())
		}
	}
	return list
}

// addressOrder is the order of Sluice's trees: the highest address comes last on each level. Of maps any order will do.
func addressOrder(_ *node, _ string, services []service) ([]netip.Addr, error) {
	var list []netip.Addr
	for a := range addressSet(services) {
		list = append(list, a)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list, nil
}

// addressSet holds the addresses of Services that have endpoints.
func addressSet(services []service) map[netip.Addr]bool {
	set := map[netip.Addr]bool{}
	for _, s := range services {
		if len(s.backends) > 0 {
			set[s.vip] = true
		}
	}
	return set
}

// version is what a program says about itself.
func version(ctx context.Context, path string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return "", fmt.Errorf("run %s %q: %w", path, args, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first), nil
}
