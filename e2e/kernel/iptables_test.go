package kernel_test

import (
	"context"
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
				Mode:     prepared{iptables.NewMode(iptables.Config{Backend: backend, DropInvalid: true})},
				Firewall: proxytest.IptablesFirewall(func(f proxy.Family) string { return program(backend, f, "") }),
				Dump:     func(f proxy.Family) string { return save(backend, f) },
			})
		})
	}
}

// prepared is a mode whose dataplanes find the kernel prepared, as a start leaves it.
type prepared struct{ proxy.Mode }

func (p prepared) New(f proxy.Family) (proxy.Dataplane, error) {
	if err := p.Mode.(proxy.Preparer).Prepare(context.Background(), []proxy.Family{f}); err != nil {
		return nil, err
	}
	return p.Mode.New(f)
}

// program is the name of a tool of a backend, e.g. ip6tables-legacy-save.
func program(backend xtables.Backend, f proxy.Family, suffix string) string {
	name := "iptables"
	if f == proxy.IPv6 {
		name = "ip6tables"
	}
	return name + "-" + string(backend) + suffix
}

// save is what iptables-save prints in the calling thread's namespace.
func save(backend xtables.Backend, f proxy.Family) string {
	out, err := exec.Command(program(backend, f, "-save"), "-c").CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
}
