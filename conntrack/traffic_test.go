package conntrack

import (
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	vip   = "10.96.0.10:53"
	first = "127.0.0.2:5353"
	other = "127.0.0.3:5353"
)

// A client that keeps its socket follows the Service through real rules and packets: to a Service
// that comes after it, to another backend, and away when the Service goes.
func TestKernelFlowsFollowTheService(t *testing.T) {
	inNamespace(t)
	connectLoopback(t)
	for _, backend := range []string{first, other} {
		echo(t, backend)
	}
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	// Rules that translate nothing yet make the kernel track flows.
	iptables(t, "-A", "OUTPUT", "-p", "udp", "--dport", "1", "-j", "DNAT", "--to-destination", "127.0.0.1:1")

	c := NewCleaner(&Kernel{})
	none := snapshot(oneNode)
	applied(t, c, nil, none, 0)
	expectAnswer(t, client, "")

	withFirst := snapshot(oneNode, port(proxy.UDP, "dns", []string{vip}, first))
	translate(t, "-A", first)
	expectAnswer(t, client, "") // the flow is older than the rule
	applied(t, c, none, withFirst, 1)
	expectAnswer(t, client, first)
	for f, err := range (&Kernel{}).Flows(t.Context(), proxy.IPv4) {
		if to := f.Original.Dst.String() == vip; err != nil || f.DNAT != to {
			t.Errorf("%v: DNAT %t, want %t; %v", f.Original, f.DNAT, to, err)
		}
	}

	withOther := snapshot(oneNode, port(proxy.UDP, "dns", []string{vip}, other))
	translate(t, "-D", first)
	translate(t, "-A", other)
	expectAnswer(t, client, first) // the flow holds on to its backend
	applied(t, c, withFirst, withOther, 1)
	expectAnswer(t, client, other)

	applied(t, c, nil, withOther, 0) // a restart keeps it
	expectAnswer(t, client, other)

	translate(t, "-D", other)
	applied(t, c, withOther, none, 1)
	expectAnswer(t, client, "")
}

func applied(t *testing.T, c *Cleaner, old, cur *proxy.Snapshot, deleted int) {
	t.Helper()
	r, err := c.Applied(t.Context(), old, cur)
	if err != nil {
		t.Fatal(err)
	}
	if r.Total() != deleted {
		t.Errorf("deleted %+v, want %d", r.Deleted, deleted)
	}
}

// connectLoopback lets packets for Services go somewhere in an empty namespace.
func connectLoopback(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	services := &net.IPNet{IP: net.IPv4(10, 96, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}
	route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: services, Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
}

// echo answers on an address with the address.
func echo(t *testing.T, addr string) {
	t.Helper()
	server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		buf := make([]byte, 16)
		for {
			_, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return // closed
			}
			_, _ = server.WriteToUDPAddrPort([]byte(addr), from)
		}
	}()
}

// translate adds or deletes the rule that sends the VIP to a backend.
func translate(t *testing.T, operation, backend string) {
	t.Helper()
	iptables(t, operation, "OUTPUT", "-d", "10.96.0.10", "-p", "udp", "--dport", "53", "-j", "DNAT", "--to-destination", backend)
}

func iptables(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "iptables", append([]string{"-w", "-t", "nat"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("iptables %v: %v: %s", args, err, out)
	}
}

// expectAnswer sends a packet to the VIP and expects an answer from a backend; from nobody if it is
// empty.
func expectAnswer(t *testing.T, client *net.UDPConn, want string) {
	t.Helper()
	if _, err := client.WriteToUDPAddrPort([]byte("?"), netip.MustParseAddrPort(vip)); err != nil {
		t.Fatal(err)
	}
	patience := 5 * time.Second
	if want == "" {
		patience = 50 * time.Millisecond // loopback answers at once or never
	}
	if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, from, err := client.ReadFromUDPAddrPort(buf)
	switch {
	case want == "" && err == nil:
		t.Errorf("%s answered through %v, want nobody", buf[:n], from)
	case want != "" && err != nil:
		t.Errorf("no answer, want one from %s: %v", want, err)
	case want != "" && (string(buf[:n]) != want || from.String() != vip):
		t.Errorf("%s answered through %v, want %s through %s", buf[:n], from, want, vip)
	}
}
