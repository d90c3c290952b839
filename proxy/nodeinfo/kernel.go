package nodeinfo

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/klog/v2"
)

const (
	addrBurst = 100 * time.Millisecond // events within this time give one update
	addrRetry = time.Second
	addrTries = 5
)

// WatchAddrs calls set with the addresses of all interfaces, at first and after each change, until ctx
// ends.
func WatchAddrs(ctx context.Context, set func([]netip.Addr)) {
	for ctx.Err() == nil {
		if err := watchAddrs(ctx, set); err != nil {
			klog.FromContext(ctx).Error(err, "Interface addresses not watched", "retryIn", addrRetry)
		}
		pause(ctx, addrRetry)
	}
}

// watchAddrs returns nil when ctx or the subscription has ended.
func watchAddrs(ctx context.Context, set func([]netip.Addr)) error {
	done := make(chan struct{})
	defer close(done)
	events := make(chan netlink.AddrUpdate)
	ended := make(chan struct{})
	burst := make(chan struct{}, 1)
	opts := netlink.AddrSubscribeOptions{ErrorCallback: func(err error) {
		if ctx.Err() == nil {
			klog.FromContext(ctx).V(1).Info("Address subscription ended", "err", err)
		}
	}}
	// Subscribed before listed: what changes in between is seen twice rather than never.
	if err := netlink.AddrSubscribeWithOptions(events, done, opts); err != nil {
		return fmt.Errorf("subscribe to addresses: %w", err)
	}
	go func() {
		defer close(ended)
		for range events {
			select {
			case burst <- struct{}{}:
			default:
			}
		}
	}()
	for {
		addrs, err := Addrs()
		if err != nil {
			return err
		}
		set(addrs)
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			return nil
		case <-burst:
			pause(ctx, addrBurst)
			select {
			case <-burst: // the list that follows has it all
			default:
			}
		}
	}
}

// servicesInterface has the addresses of Services, where kube-proxy's mode ipvs has left it. They are not the node's, and no
// NodePort is served there.
const servicesInterface = "kube-ipvs0"

// Addrs lists the node's addresses, of all interfaces, in the order of the interfaces.
func Addrs() ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list interface addresses: %w", err)
	}
	services := 0 // no interface has this number
	if link, err := netlink.LinkByName(servicesInterface); err == nil {
		services = link.Attrs().Index
	}
	addrs := make([]netip.Addr, 0, len(list))
	for _, a := range list {
		if addr, ok := netip.AddrFromSlice(a.IP); ok && a.LinkIndex != services {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, nil
}

// AddrsAtLast is Addrs, tried several times: a list that changes while it is read ends with an error, and
// those of a node that starts change often.
func AddrsAtLast(ctx context.Context) ([]netip.Addr, error) { return atLast(ctx, Addrs) }

func atLast(ctx context.Context, list func() ([]netip.Addr, error)) ([]netip.Addr, error) {
	for try := 1; ; try++ {
		addrs, err := list()
		if err == nil || try == addrTries || ctx.Err() != nil {
			return addrs, err
		}
		klog.FromContext(ctx).Info("Interface addresses not read", "reason", err.Error(), "retryIn", addrRetry)
		pause(ctx, addrRetry)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// IPv6Missing says why the kernel has no IPv6, or nothing if it has.
func IPv6Missing() string {
	if _, err := os.Stat("/proc/thread-self/net/if_inet6"); err != nil {
		return "the kernel has no IPv6 (no /proc/net/if_inet6)"
	}
	off, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	if err == nil && string(bytes.TrimSpace(off)) == "1" {
		return "net.ipv6.conf.all.disable_ipv6 is 1"
	}
	return ""
}
