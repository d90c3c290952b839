package nodeinfo

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread of its own in a new network namespace. The thread ends with it.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root to make a network namespace: run the tests as root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked, so the thread is not used again
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare network namespace: %v", err)
			return
		}
		f()
	}()
	<-done
}

func addAddr(t *testing.T, link netlink.Link, text string) {
	t.Helper()
	addr, err := netlink.ParseAddr(text)
	if err != nil {
		t.Error(err)
		return
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Errorf("add %s: %v", text, err)
	}
}

func TestKernelAddressesAreWatched(t *testing.T) {
	inNamespace(t, func() {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Error(err)
			return
		}
		addAddr(t, lo, "192.0.2.1/32")
		// The watch runs on this thread, in the namespace; each set of addresses causes the next change.
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		first, second, third := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::3")
		step := 0
		WatchAddrs(ctx, func(addrs []netip.Addr) {
			switch {
			case step == 0 && slices.Contains(addrs, first):
				addAddr(t, lo, "192.0.2.2/32")
				step++
			case step == 1 && slices.Contains(addrs, second):
				addAddr(t, lo, "2001:db8::3/128")
				step++
			case step == 2 && slices.Contains(addrs, third):
				addr, _ := netlink.ParseAddr("192.0.2.1/32")
				if err := netlink.AddrDel(lo, addr); err != nil {
					t.Error(err)
				}
				step++
			case step == 3 && !slices.Contains(addrs, first):
				cancel()
			}
		})
	})
}

func TestKernelAddressesOfServicesAreNotTheNodes(t *testing.T) {
	inNamespace(t, func() {
		link := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "kube-ipvs0"}}
		if err := netlink.LinkAdd(link); err != nil {
			t.Error(err)
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Error(err)
			return
		}
		addAddr(t, lo, "192.0.2.1/32")
		addAddr(t, link, "10.96.0.1/32")
		addAddr(t, link, "2001:db8::10/128")
		if got, err := Addrs(); err != nil || !slices.Equal(got, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestKernelBurstOfAddressesIsOneUpdate(t *testing.T) {
	inNamespace(t, func() {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Error(err)
			return
		}
		const burst = 50
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		updates := 0
		WatchAddrs(ctx, func(addrs []netip.Addr) {
			updates++
			if updates == 1 {
				for i := range burst {
					addAddr(t, lo, fmt.Sprintf("192.0.2.%d/32", i+1))
				}
			}
			if slices.Contains(addrs, netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", burst))) {
				cancel()
			}
		})
		if updates > burst/10 {
			t.Errorf("%d updates for %d addresses at once", updates, burst)
		}
	})
}

func TestKernelWithoutIPv6IsRecognised(t *testing.T) {
	inNamespace(t, func() {
		const file = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
		if missing := IPv6Missing(); missing != "" {
			t.Errorf("got %q in a new namespace", missing)
		}
		if err := os.WriteFile(file, []byte("1"), 0o644); err != nil {
			t.Error(err)
		}
		if missing := IPv6Missing(); missing == "" {
			t.Error("disabled IPv6 was not noticed")
		}
	})
}
