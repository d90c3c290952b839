package kubeproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// The node's own connections must not come from an address that is about to go.
func TestKernelNewConnectionsOfTheNodeComeFromItsOwnAddress(t *testing.T) {
	l := lab.Start(t, lab.Config{})
	run := func(format string, args ...any) string {
		t.Helper()
		line := fmt.Sprintf(format, args...)
		out, err := l.Node.Run("sh", "-c", line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return out
	}
	vip := netip.MustParseAddr("10.96.0.99")
	// Not every kernel has dummy interfaces.
	setUp := func() {
		t.Helper()
		run("ip link add %s type veth peer name kube-other && ip link set kube-other up && ip link set %s up", kernel.CompatName, kernel.CompatName)
		suite.Eventually(t, "the interface is up", func() error {
			if state := run("ip -o link show %s", kernel.CompatName); !strings.Contains(state, "LOWER_UP") {
				return errors.New(state)
			}
			return nil
		})
		for _, f := range proxy.Families {
			run("ip addr add %v/%d dev %s $([ %v = IPv4 ] || echo nodad)", lab.In(f, vip), f.Bits(), kernel.CompatName, f)
			suite.Eventually(t, "its address is the node's", func() error {
				if route := run("ip route get %v", lab.In(f, vip)); !strings.HasPrefix(route, "local ") {
					return errors.New(route)
				}
				return nil
			})
		}
	}
	source := regexp.MustCompile(` src (\S+)`)
	sourceOf := func(f proxy.Family) string {
		t.Helper()
		return source.FindString(run("ip route get %v", lab.In(f, vip)))
	}
	usual := map[proxy.Family]string{}
	for _, f := range proxy.Families {
		usual[f] = sourceOf(f)
	}
	wantSource := func(f proxy.Family, want string) {
		t.Helper()
		if route := run("ip route get %v", lab.In(f, vip)); !strings.HasPrefix(route, "local ") || source.FindString(route) != want {
			t.Errorf("%v: got %q, want%s", f, route, want)
		}
	}
	left := func() string {
		return run("ip route show table local dev %s; ip -6 route show table local dev %s", kernel.CompatName, kernel.CompatName)
	}

	setUp()
	for _, f := range proxy.Families {
		wantSource(f, " src "+lab.In(f, vip).String())
	}
	for range 2 { // again changes nothing
		if err := l.Node.Do(func() error { return Virtual{}.Spare() }); err != nil {
			t.Fatal(err)
		}
		for _, f := range proxy.Families {
			wantSource(f, usual[f])
		}
	}
	if err := l.Node.Do(func() error { return kernel.RemoveKubeProxysInterface(true) }); err != nil {
		t.Fatal(err)
	}
	if routes := left(); strings.Contains(routes, vip.String()) || strings.Contains(routes, lab.In(proxy.IPv6, vip).String()) {
		t.Errorf("an interface without addresses has routes:\n%s", routes)
	}

	run("ip link del %s", kernel.CompatName)
	setUp()
	if err := l.Node.Do(func() error { return Virtual{}.Spare() }); err != nil {
		t.Fatal(err)
	}
	if err := l.Node.Do(func() error { return kernel.RemoveKubeProxysInterface(false) }); err != nil {
		t.Fatal(err)
	}
	for _, f := range proxy.Families {
		if out, err := l.Node.Run("ip", "route", "get", lab.In(f, vip).String()); err == nil && strings.HasPrefix(out, "local ") {
			t.Errorf("%v is still the node's: %s", f, out)
		}
	}
}
