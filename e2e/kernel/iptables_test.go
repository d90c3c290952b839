package kernel_test

import (
	"fmt"
	"os/exec"
	"testing"

	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
)

// backends are the two ways of iptables to reach the kernel.
var backends = []xtables.Backend{xtables.NFT, xtables.Legacy}

// TestKernelIptables plays every scenario with both backends, in both families.
func TestKernelIptables(t *testing.T) {
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			proxytest.Run(t, proxytest.Harness{
				Mode:     iptables.NewMode(iptables.Config{Backend: backend, DropInvalid: true}),
				Firewall: func(f proxy.Family, on bool) error { return firewall(backend, f, on) },
				Dump:     func(f proxy.Family) string { return save(backend, f) },
			})
		})
	}
}

// program is the name of a tool of a backend, e.g. ip6tables-legacy-save.
func program(backend xtables.Backend, f proxy.Family, suffix string) string {
	name := "iptables"
	if f == proxy.IPv6 {
		name = "ip6tables"
	}
	return name + "-" + string(backend) + suffix
}

// firewall makes the calling thread's namespace drop what nobody accepts, as hardened hosts do.
func firewall(backend xtables.Backend, f proxy.Family, on bool) error {
	action, policy := "-A", "DROP"
	if !on {
		action, policy = "-D", "ACCEPT"
	}
	rules := [][]string{
		{"-P", "INPUT", policy},
		{"-P", "FORWARD", policy},
		{action, "INPUT", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"},
		{action, "INPUT", "-i", "lo", "-j", "ACCEPT"},
	}
	if f == proxy.IPv6 { // without neighbour discovery nothing works
		rules = append(rules, []string{action, "INPUT", "-p", "ipv6-icmp", "-j", "ACCEPT"})
	}
	for _, args := range rules {
		args = append([]string{"-w"}, args...)
		if out, err := exec.Command(program(backend, f, ""), args...).CombinedOutput(); err != nil {
			return fmt.Errorf("iptables %q: %w: %s", args, err, out)
		}
	}
	return nil
}

// save is what iptables-save prints in the calling thread's namespace.
func save(backend xtables.Backend, f proxy.Family) string {
	out, err := exec.Command(program(backend, f, "-save"), "-c").CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
}
