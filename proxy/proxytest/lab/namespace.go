package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace without a name. It is safe for concurrent use until it is closed.
type Namespace struct {
	handle netns.NsHandle
	links  *netlink.Handle
}

// NewNamespace makes a network namespace with its loopback interface up.
func NewNamespace() (*Namespace, error) {
	type result struct {
		ns  *Namespace
		err error
	}
	done := make(chan result)
	go func() {
		// The thread is not given back: it ends with this goroutine, in the new namespace.
		runtime.LockOSThread()
		ns, err := unshare()
		done <- result{ns, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("make network namespace: %w", r.err)
	}
	return r.ns, nil
}

// unshare moves the calling thread to a new namespace.
func unshare() (*Namespace, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	handle, err := netns.Get()
	if err != nil {
		return nil, err
	}
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	ns := &Namespace{handle: handle, links: links}
	if err := ns.prepare(); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, nil
}

// prepare makes the namespace of the calling thread behave the same whatever the host's defaults
// are, and usable at once: addresses are never tentative, and ICMP errors are not rationed.
func (ns *Namespace) prepare() error {
	err := writeSysctls(map[string]string{
		"net/ipv6/conf/all/disable_ipv6":     "0",
		"net/ipv6/conf/default/disable_ipv6": "0",
		"net/ipv6/conf/lo/disable_ipv6":      "0",
		"net/ipv6/conf/all/accept_dad":       "0",
		"net/ipv6/conf/default/accept_dad":   "0",
		"net/ipv6/conf/default/accept_ra":    "0",
		"net/ipv4/conf/all/rp_filter":        "0",
		"net/ipv4/conf/default/rp_filter":    "0",
		"net/ipv6/ip_nonlocal_bind":          "1", // to answer from addresses that only a route makes local
		"net/ipv4/ping_group_range":          "0 2147483647",
		"net/ipv4/icmp_ratelimit":            "0",
		"net/ipv6/icmp/ratelimit":            "0",
	})
	if err != nil {
		return err
	}
	// Kernels before 6.13 have these two for the whole machine, and hide them here.
	optional := map[string]string{"net/ipv4/icmp_msgs_per_sec": "1000000", "net/ipv4/icmp_msgs_burst": "1000000"}
	if err := writeSysctls(optional); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	lo, err := ns.links.LinkByName("lo")
	if err != nil {
		return err
	}
	return ns.links.LinkSetUp(lo)
}

// Close lets go of the namespace. The kernel removes it once its last socket is closed too.
func (ns *Namespace) Close() error {
	ns.links.Close()
	return ns.handle.Close()
}

// Path names the namespace for other programs, e.g. nsenter --net=PATH, while this process lives.
func (ns *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns.handle))
}

// Netlink is the namespace's routing and netfilter netlink handle.
func (ns *Namespace) Netlink() *netlink.Handle { return ns.links }

// Do runs f on a thread inside the namespace and returns its error. Sockets that f opens and
// programs that it starts belong to the namespace; goroutines that it starts do not run there.
func (ns *Namespace) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer func() {
		// A thread that cannot go home stays locked, so that it ends with its goroutine.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		_ = home.Close()
	}()
	if err := netns.Set(ns.handle); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return f()
}

// DialContext connects from inside the namespace, in the form that HTTP transports and Kubernetes
// clients take. The address must not need a name to be looked up.
func (ns *Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := ns.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens inside the namespace.
func (ns *Namespace) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, address)
		return err
	})
	return l, err
}

// Start starts the program inside the namespace. /sys still shows the caller's namespace.
func (ns *Namespace) Start(cmd *exec.Cmd) error { return ns.Do(cmd.Start) }

// Run runs a program inside the namespace and returns its output, which an error holds too.
func (ns *Namespace) Run(name string, args ...string) (string, error) {
	var out []byte
	err := ns.Do(func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	if err != nil {
		return string(out), fmt.Errorf("run %s %q: %w\n%s", name, args, err, out)
	}
	return string(out), nil
}

// Sysctl sets kernel parameters of the namespace, named by path ("net/ipv4/ip_forward").
func (ns *Namespace) Sysctl(values map[string]string) error {
	return ns.Do(func() error { return writeSysctls(values) })
}

func writeSysctls(values map[string]string) error {
	var errs []error
	for name, value := range values {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			errs = append(errs, fmt.Errorf("set sysctl %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// FlushFlows forgets every connection that the namespace tracks.
func (ns *Namespace) FlushFlows() error {
	if err := ns.links.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		return fmt.Errorf("flush conntrack: %w", err)
	}
	return nil
}
