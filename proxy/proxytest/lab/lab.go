package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
)

// Config says what differs from one lab to another.
type Config struct {
	Pods   int  // pods on the node under test; 0: 3
	Bridge bool // the pods share the bridge BridgeName instead of having an interface of the node each
}

// Lab is a network of namespaces. Its hosts are there and reach each other when New returns.
type Lab struct {
	Node   *Host   // the machine under test: it forwards, and serves nothing
	Pods   []*Host // pods on the node, named pod-a, pod-b, …
	Client *Host   // outside of the cluster, with 6 addresses; it sends everything to the node, 127.0.0.1 too
	Remote *Host   // another node; the node routes RemoteCIDR and CrowdCIDR to it

	// RemotePods live on the other node, in its namespace: they differ from it by their addresses.
	RemotePods []*Host

	// Crowd stands for thousands of remote pods: it owns every address of CrowdCIDR.
	Crowd *Host

	// World owns every address that nobody else has. What reaches it, or the node itself, was sent
	// to an address that the node does not translate.
	World *Host

	namespaces []*Namespace

	mu      sync.Mutex
	servers map[serverKey]*server
}

// Host is a machine or a pod: a namespace and addresses in it. Hosts may share a namespace. It is
// safe for concurrent use.
type Host struct {
	*Namespace
	Name  string
	addrs []netip.Addr // in IPv4
	lab   *Lab
}

// Addr is the host's first address in a family.
func (h *Host) Addr(f proxy.Family) netip.Addr { return In(f, h.addrs[0]) }

// Addrs are the host's addresses in a family, sorted, without loopback.
func (h *Host) Addrs(f proxy.Family) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(h.addrs))
	for _, a := range h.addrs {
		addrs = append(addrs, In(f, a))
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

// Start makes a lab that ends with the test, and fails the test if it cannot.
func Start(t testing.TB, cfg Config) *Lab {
	t.Helper()
	l, err := New(cfg)
	if err != nil {
		t.Fatalf("this test needs root and network namespaces: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return l
}

// New makes a lab. Its owner closes it.
func New(cfg Config) (*Lab, error) {
	if cfg.Pods == 0 {
		cfg.Pods = 3
	}
	l := &Lab{servers: map[serverKey]*server{}}
	if err := l.build(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("build lab: %w", err), l.Close())
	}
	for _, ns := range l.namespaces {
		if err := ns.awaitLinks(); err != nil {
			return nil, errors.Join(fmt.Errorf("build lab: %w", err), l.Close())
		}
	}
	return l, nil
}

// Close ends the servers and removes the namespaces. It may be called once.
func (l *Lab) Close() error {
	var errs []error
	for _, s := range l.servers {
		errs = append(errs, s.close())
	}
	for _, ns := range l.namespaces {
		errs = append(errs, ns.Close())
	}
	return errors.Join(errs...)
}

// host makes a host in a namespace of its own.
func (l *Lab) host(name string, addrs ...netip.Addr) (*Host, error) {
	ns, err := NewNamespace()
	if err != nil {
		return nil, err
	}
	l.namespaces = append(l.namespaces, ns)
	return l.guest(name, ns, addrs...), nil
}

// guest makes a host in the namespace of another.
func (l *Lab) guest(name string, ns *Namespace, addrs ...netip.Addr) *Host {
	return &Host{Namespace: ns, Name: name, addrs: addrs, lab: l}
}
