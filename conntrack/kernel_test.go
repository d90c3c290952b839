package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// inNamespace runs the rest of the test in a network namespace of its own.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("needs root to make a network namespace: run the tests as root")
	}
	// The thread is not unlocked, so it ends with the test's goroutine and with it the namespace.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare network namespace: %v", err)
	}
}

// create puts a flow into the kernel's table, with an encoder that is not ours.
func create(t *testing.T, protocol proxy.Protocol, f Flow) {
	t.Helper()
	flow := &netlink.ConntrackFlow{
		FamilyType: netlinkFamily(proxy.FamilyOf(f.Original.Dst.Addr())),
		Forward:    ipTuple(protocol, f.Original),
		Reverse:    ipTuple(protocol, f.Reply),
		Zone:       f.Zone,
		TimeOut:    600,
	}
	if protocol == proxy.TCP {
		flow.ProtoInfo = &netlink.ProtoInfoTCP{State: 3}
	}
	family := netlink.InetFamily(flow.FamilyType)
	if err := netlink.ConntrackCreate(netlink.ConntrackTable, family, flow); err != nil {
		t.Fatalf("create %v flow %v: %v", protocol, f, err)
	}
}

func ipTuple(protocol proxy.Protocol, tu Tuple) netlink.IPTuple {
	return netlink.IPTuple{
		Protocol: uint8(protocol),
		SrcIP:    net.IP(tu.Src.Addr().AsSlice()), SrcPort: tu.Src.Port(),
		DstIP: net.IP(tu.Dst.Addr().AsSlice()), DstPort: tu.Dst.Port(),
	}
}

// list collects the flows of a family, without their IDs, sorted.
func list(t *testing.T, table Table, family proxy.Family) []Flow {
	t.Helper()
	var flows []Flow
	for f, err := range table.Flows(context.Background(), family) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		flows = append(flows, f)
	}
	slices.SortFunc(flows, func(a, b Flow) int { return a.Original.Src.Compare(b.Original.Src) })
	return flows
}

var (
	ignoreID  = cmpopts.IgnoreFields(Flow{}, "ID")
	addrPorts = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
)

func TestKernelListsOnlyUDPFlowsOfTheFamily(t *testing.T) {
	for _, filter := range []bool{true, false} {
		t.Run(fmt.Sprintf("filter in kernel %v", filter), func(t *testing.T) {
			inNamespace(t)
			v4 := translated("192.0.2.1:1000", "10.96.0.10:53", "10.0.0.1:5353")
			v6 := translated("[2001:db8::1]:1000", "[fd00::10]:53", "[fd01::1]:5353")
			create(t, proxy.UDP, v4)
			create(t, proxy.UDP, v6)
			create(t, proxy.TCP, v4)
			create(t, proxy.TCP, v6)
			var table Kernel
			table.unfiltered.Store(!filter)
			for family, want := range map[proxy.Family]Flow{proxy.IPv4: v4, proxy.IPv6: v6} {
				got := list(t, &table, family)
				if diff := cmp.Diff([]Flow{want}, got, ignoreID, addrPorts); diff != "" {
					t.Errorf("%v flows (-want +got):\n%s", family, diff)
				}
				if len(got) == 1 && got[0].ID == 0 {
					t.Errorf("%v flow has no ID", family)
				}
			}
		})
	}
}

// The kernel itself selects: with a filter no TCP flow reaches the decoder.
func TestKernelAppliesTheFilter(t *testing.T) {
	inNamespace(t)
	for port := range 50 {
		create(t, proxy.TCP, translated(fmt.Sprintf("192.0.2.1:%d", 1000+port), "10.96.0.10:53", "10.0.0.1:5353"))
	}
	create(t, proxy.UDP, translated("192.0.2.1:1000", "10.96.0.10:53", "10.0.0.1:5353"))
	for filter, want := range map[bool]int{true: 1, false: 51} {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.send(t.Context(), dumpRequest(1, proxy.IPv4, filter)); err != nil {
			t.Fatal(err)
		}
		messages := 0
		for done := false; !done; {
			done, err = c.receive(t.Context(), func(m message) (bool, error) {
				if m.typ == unix.NLMSG_DONE {
					return true, m.result()
				}
				messages++
				return false, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if messages != want {
			t.Errorf("filter %v: %d messages, want %d", filter, messages, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestKernelDeletesExactlyTheGivenFlows(t *testing.T) {
	inNamespace(t)
	table := &Kernel{}
	const flows = 3*deleteBatch + 7
	for i := range flows {
		f := translated(fmt.Sprintf("192.0.2.1:%d", 1000+i), "10.96.0.10:53", "10.0.0.1:5353")
		create(t, proxy.UDP, f)
		create(t, proxy.TCP, f)
	}
	all := list(t, table, proxy.IPv4)
	if len(all) != flows {
		t.Fatalf("%d flows, want %d", len(all), flows)
	}
	keep := all[0]
	other := all[1]
	other.ID++ // another flow with the same tuple has come since
	gone := translated("192.0.2.99:1", "10.96.0.10:53", "10.0.0.1:5353")
	n, err := table.Delete(t.Context(), proxy.IPv4, append([]Flow{other, gone}, all[2:]...))
	if n != flows-2 || err != nil {
		t.Errorf("deleted %d, %v; want %d", n, err, flows-2)
	}
	left := list(t, table, proxy.IPv4)
	if diff := cmp.Diff([]Flow{keep, all[1]}, left, addrPorts); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	tcp, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	if err != nil || len(tcp) != flows+2 {
		t.Errorf("%d flows of both protocols are left, %v; want %d", len(tcp), err, flows+2)
	}
}

func TestKernelDeletesInZones(t *testing.T) {
	inNamespace(t)
	table := &Kernel{}
	f := translated("192.0.2.1:1000", "10.96.0.10:53", "10.0.0.1:5353")
	create(t, proxy.UDP, f)
	f.Zone = 7
	createInZone(t, f)
	all := list(t, table, proxy.IPv4)
	if len(all) != 2 {
		t.Fatalf("%d flows, want 2: %v", len(all), all)
	}
	i := slices.IndexFunc(all, func(f Flow) bool { return f.Zone == 7 })
	if i < 0 {
		t.Fatalf("no flow in zone 7: %v", all)
	}
	if n, err := table.Delete(t.Context(), proxy.IPv4, all[i:i+1]); n != 1 || err != nil {
		t.Errorf("deleted %d, %v; want 1", n, err)
	}
	if left := list(t, table, proxy.IPv4); len(left) != 1 || left[0].Zone != 0 {
		t.Errorf("left %v, want the flow in zone 0", left)
	}
}

// createInZone creates a flow in a zone, which the library cannot.
func createInZone(t *testing.T, f Flow) {
	t.Helper()
	r, start := begin(nil, unix.NFNL_SUBSYS_CTNETLINK<<8, unix.NLM_F_CREATE|unix.NLM_F_ACK, 1, proxy.IPv4)
	r.tuple(attrTupleOriginal, proxy.UDP, f.Original, 0)
	r.tuple(attrTupleReply, proxy.UDP, f.Reply, 0)
	r.attr16(attrZone, f.Zone)
	r.attr(7, []byte{0, 0, 1, 0}) // timeout
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.send(t.Context(), r.end(start)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.receive(t.Context(), func(m message) (bool, error) { return true, m.result() }); err != nil {
		t.Fatalf("create flow in zone: %v", err)
	}
}

func TestKernelRefusesToDeleteWithoutAddresses(t *testing.T) {
	inNamespace(t)
	create(t, proxy.UDP, translated("192.0.2.1:1000", "10.96.0.10:53", "10.0.0.1:5353"))
	table := &Kernel{}
	if _, err := table.Delete(t.Context(), proxy.IPv4, []Flow{{}}); err == nil {
		t.Error("a flow without addresses was accepted")
	}
	if left := list(t, table, proxy.IPv4); len(left) != 1 {
		t.Errorf("%d flows left, want 1", len(left))
	}
}

func TestKernelStopsWithTheContext(t *testing.T) {
	inNamespace(t)
	create(t, proxy.UDP, translated("192.0.2.1:1000", "10.96.0.10:53", "10.0.0.1:5353"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range (&Kernel{}).Flows(ctx, proxy.IPv4) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want %v", err, context.Canceled)
		}
	}
}

func TestKernelListingCanBeLeftEarly(t *testing.T) {
	inNamespace(t)
	for port := range 10 {
		create(t, proxy.UDP, translated(fmt.Sprintf("192.0.2.1:%d", 1000+port), "10.96.0.10:53", "10.0.0.1:5353"))
	}
	seen := 0
	for _, err := range (&Kernel{}).Flows(t.Context(), proxy.IPv4) {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 3 {
			break
		}
	}
	if seen != 3 {
		t.Errorf("saw %d flows, want 3", seen)
	}
}

func TestKernelGetsOneConnection(t *testing.T) {
	inNamespace(t)
	table := &Kernel{}
	for _, flow := range []Flow{
		translated("192.0.2.1:1000", "10.96.0.10:53", "10.0.0.1:5353"),
		translated("[2001:db8::1]:1000", "[fd00::10]:53", "[fd01::1]:5353"),
	} {
		create(t, proxy.TCP, flow)
		found, err := table.Get(t.Context(), proxy.TCP, flow.Original)
		if err != nil || found == nil {
			t.Fatalf("got %v, %v", found, err)
		}
		if found.Protocol != proxy.TCP || found.Original != flow.Original || found.Reply != flow.Reply || found.Left <= 0 || found.State == "" {
			t.Errorf("got %+v, want %+v", found, flow)
		}
		if found.Status == 0 || found.Status&SeenReply != 0 {
			t.Errorf("status %b", found.Status)
		}
		if none, err := table.Get(t.Context(), proxy.UDP, flow.Original); none != nil || err != nil {
			t.Errorf("got %v, %v where there is none", none, err)
		}
	}
}
