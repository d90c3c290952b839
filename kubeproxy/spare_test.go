package kubeproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// The node's own connections must not come from an address that is about to go. kube-proxy leaves its interface down.
func TestKernelNewConnectionsOfTheNodeComeFromItsOwnAddress(t *testing.T) {
	for _, state := range []string{"down", "up"} {
		t.Run(state, func(t *testing.T) {
			n := newSpareNode(t, state)
			for range 2 { // again changes nothing
				n.do(func() error { return Virtual{}.Spare() })
				n.wantUsual()
			}
			n.do(func() error { return kernel.RemoveKubeProxysInterface(true) })
			n.wantNone()

			n.run("ip link del %s", kernel.CompatName)
			n.setUp()
			n.do(func() error { return Virtual{}.Spare() })
			n.do(func() error { return kernel.RemoveKubeProxysInterface(false) })
			n.wantNone()

			n.setUp()
			n.do(func() error { return Virtual{}.Spare() })
			n.run("ip link del %s", kernel.CompatName) // as kube-proxy does
			n.do(func() error {
				lines, err := Virtual{}.Traces(t.Context())
				if want := fmt.Sprintf("local route to %v", lab.In(proxy.IPv6, spareVIP)); !slices.Contains(lines, want) {
					t.Errorf("traces are %q, want %q", lines, want)
				}
				return err
			})
			n.do(func() error { return Virtual{}.Remove(t.Context()) })
			n.wantNone()
		})
	}
}

// spareNode is a node with an interface of kube-proxy's, which has an address of each family.
type spareNode struct {
	*testing.T
	node  *lab.Host
	state string // of the interface
	usual map[proxy.Family]string
}

var spareVIP = netip.MustParseAddr("10.96.0.99")

func newSpareNode(t *testing.T, state string) *spareNode {
	t.Helper()
	n := &spareNode{T: t, node: lab.Start(t, lab.Config{}).Node, state: state, usual: map[proxy.Family]string{}}
	for _, f := range proxy.Families {
		n.usual[f] = n.source(f)
	}
	n.setUp()
	return n
}

func (n *spareNode) run(format string, args ...any) string {
	n.Helper()
	line := fmt.Sprintf(format, args...)
	out, err := n.node.Run("sh", "-c", line)
	if err != nil {
		n.Fatalf("%s: %v", line, err)
	}
	return out
}

func (n *spareNode) do(f func() error) {
	n.Helper()
	if err := n.node.Do(f); err != nil {
		n.Fatal(err)
	}
}

// setUp makes the interface. Not every kernel has dummy interfaces.
func (n *spareNode) setUp() {
	n.Helper()
	n.run("ip link add %s type veth peer name kube-other && ip link set kube-other up", kernel.CompatName)
	if n.state == "up" {
		n.run("ip link set %s up", kernel.CompatName)
		suite.Eventually(n.T, "the interface is up", func() error {
			if state := n.run("ip -o link show %s", kernel.CompatName); !strings.Contains(state, "LOWER_UP") {
				return errors.New(state)
			}
			return nil
		})
	}
	for _, f := range proxy.Families {
		vip := lab.In(f, spareVIP)
		n.run("ip addr add %v/%d dev %s $([ %v = IPv4 ] || echo nodad)", vip, f.Bits(), kernel.CompatName, f)
		suite.Eventually(n.T, "new connections come from its address", func() error {
			if route := n.route(f); !strings.HasPrefix(route, "local ") || sourceOf(route) != vip.String() {
				return errors.New(route)
			}
			return nil
		})
	}
}

// route is the way to the address.
func (n *spareNode) route(f proxy.Family) string {
	n.Helper()
	return n.run("ip route get %v", lab.In(f, spareVIP))
}

var sourceMatch = regexp.MustCompile(` src (\S+)`)

func sourceOf(route string) string {
	if found := sourceMatch.FindStringSubmatch(route); found != nil {
		return found[1]
	}
	return ""
}

func (n *spareNode) source(f proxy.Family) string { n.Helper(); return sourceOf(n.route(f)) }

// wantUsual wants the address to be the node's, and its connections to come from another one.
func (n *spareNode) wantUsual() {
	n.Helper()
	for _, f := range proxy.Families {
		if route := n.route(f); !strings.HasPrefix(route, "local ") || sourceOf(route) != n.usual[f] {
			n.Errorf("%v: got %q, want source %s", f, route, n.usual[f])
		}
	}
}

// wantNone wants the address not to be the node's.
func (n *spareNode) wantNone() {
	n.Helper()
	for _, f := range proxy.Families {
		vip := lab.In(f, spareVIP)
		if out, err := n.node.Run("ip", "route", "get", vip.String()); err == nil && strings.HasPrefix(out, "local ") {
			n.Errorf("%v is still the node's: %s", f, out)
		}
		if routes := n.run("ip -%s route show table local", f.String()[len("IPv"):]); strings.Contains(routes, vip.String()) {
			n.Errorf("a route is left:\n%s", routes)
		}
	}
}
