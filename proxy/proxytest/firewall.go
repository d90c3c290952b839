package proxytest

import (
	"fmt"
	"os/exec"

	"github.com/sluice-proxy/sluice/proxy"
)

// IptablesFirewall is a Harness.Firewall made with iptables. The argument names the program for a family.
func IptablesFirewall(program func(proxy.Family) string) func(f proxy.Family, on bool) error {
	return func(f proxy.Family, on bool) error {
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
		for _, rule := range rules {
			args := append([]string{"-w"}, rule...)
			if out, err := exec.Command(program(f), args...).CombinedOutput(); err != nil {
				return fmt.Errorf("run %s %q: %w: %s", program(f), args, err, out)
			}
		}
		return nil
	}
}
