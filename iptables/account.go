package iptables

import (
	"context"
	"sync/atomic"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/iptables/acct"
	"github.com/sluice-proxy/sluice/proxy"
)

// The accounting objects of the mode: what kube-proxy counts in those of its own.
const (
	invalidObject   = "sluice-invalid-dropped"
	localhostObject = "sluice-localhost-nodeports"
)

var objects = acct.Set{invalidObject, localhostObject}

// Counts tells whether rules of a dataplane of this mode count packets, for InvalidDropped and LocalhostNodePorts.
func Counts(d proxy.Dataplane) bool {
	ours, ok := d.(*dataplane)
	return ok && ours.cfg.counts
}

// InvalidDropped is how many packets were dropped because connection tracking cannot place them, since the object that counts them was
// made. Where nothing counts them it is acct.ErrAbsent. It is safe for concurrent use.
func InvalidDropped() (uint64, error) { return acct.Packets(invalidObject) }

// LocalhostNodePorts is, in the same way, how many connections to NodePorts of loopback addresses were accepted.
func LocalhostNodePorts() (uint64, error) { return acct.Packets(localhostObject) }

// account is in which families a node counts packets. Not every kernel has accounting objects, nor has every iptables the match for them.
type account struct {
	prepared atomic.Bool
	able     [len(proxy.Families)]atomic.Bool
}

// counts looks at what rules of an earlier start do if Prepare was not called.
func (a *account) counts(f proxy.Family) bool {
	if a.prepared.Load() {
		return a.able[f].Load()
	}
	for _, name := range objects {
		if used, err := acct.Used(name); err == nil && used {
			return true
		}
	}
	return false
}

// Prepare implements proxy.Preparer: it makes the accounting objects. A node without them serves all the same.
func (m mode) Prepare(ctx context.Context, served []proxy.Family) error {
	made := objects.Make()
	used := false
	for _, f := range served {
		err := made
		if err == nil {
			err = m.canCount(ctx, f)
		}
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Packets are not counted", "family", f, "reason", err.Error())
		}
		m.account.able[f].Store(err == nil)
		used = used || err == nil
	}
	m.account.prepared.Store(true)
	if !used {
		_ = objects.Remove() // rules of an earlier start may use them still: a clean-up removes them
	}
	return nil
}

func (m mode) canCount(ctx context.Context, f proxy.Family) error {
	ipt, err := m.open(f, m.cfg.Backend)
	if err != nil {
		return err
	}
	return patiently(func() error { return ipt.Accepts(ctx, filter, countedBy(invalidObject)+" -j RETURN") })
}

// countedBy matches every packet, and counts it.
func countedBy(object string) string { return "-m nfacct --nfacct-name " + object }
