package conntrack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
)

// The settings of connection tracking.
const (
	settingMax         = "proc/sys/net/netfilter/nf_conntrack_max"
	settingHashSize    = "sys/module/nf_conntrack/parameters/hashsize"
	settingEstablished = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"
	settingCloseWait   = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait"
	settingUDP         = "proc/sys/net/netfilter/nf_conntrack_udp_timeout"
	settingUDPStream   = "proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream"
	settingBeLiberal   = "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal"
)

// maxScaled is the most entries that the number of CPUs alone asks for.
const maxScaled = 1 << 20

// Tuning is how connection tracking is to be set. The zero value leaves everything as it is.
type Tuning struct {
	// MaxPerCore is the number of flows for each CPU, Min the least number for the machine. Without
	// MaxPerCore the limit stays, whatever Min is.
	MaxPerCore, Min int

	// Timeouts, to the second; 0 leaves a timeout as it is.
	TCPEstablished, TCPCloseWait time.Duration
	UDP, UDPStream               time.Duration

	// TCPBeLiberal keeps packets outside of the TCP window from being INVALID. False leaves the
	// setting as it is.
	TCPBeLiberal bool
}

// Tune sets connection tracking of the calling thread's network namespace. The limit is only raised.
// What is good already is not written, so a read-only /proc/sys does no harm then. The error names
// each setting that could not be given the value it needs.
func Tune(ctx context.Context, tree sysctl.Tree, t Tuning) error {
	k := tuner{log: klog.FromContext(ctx), tree: tree}
	if limit := t.max(tree.CPUs()); limit > 0 {
		k.note(k.raise(settingMax, limit))
		if err := k.raise(settingHashSize, limit/4); err != nil {
			// A small hash table costs time and nothing else, and only the initial network
			// namespace may change it.
			k.log.Info("Kept a small conntrack hash table", "reason", err.Error())
		}
	}
	k.timeout(settingEstablished, t.TCPEstablished)
	k.timeout(settingCloseWait, t.TCPCloseWait)
	k.timeout(settingUDP, t.UDP)
	k.timeout(settingUDPStream, t.UDPStream)
	if t.TCPBeLiberal {
		k.note(k.raise(settingBeLiberal, 1))
	}
	if err := errors.Join(k.errs...); err != nil {
		return fmt.Errorf("tune conntrack: %w", err)
	}
	return nil
}

// tuner changes settings and collects what went wrong.
type tuner struct {
	log  klog.Logger
	tree sysctl.Tree
	errs []error
}

func (k *tuner) raise(setting string, value int) error {
	was, err := k.tree.Raise(setting, value)
	if err == nil && was < value {
		k.changed(setting, was, value)
	}
	return err
}

func (k *tuner) timeout(setting string, value time.Duration) {
	if value <= 0 {
		return
	}
	seconds := max(1, int(value/time.Second)) // 0 would end every flow at once
	was, err := k.tree.Set(setting, seconds)
	if err == nil && was != seconds {
		k.changed(setting, was, seconds)
	}
	k.note(err)
}

func (k *tuner) note(err error) { k.errs = append(k.errs, err) }

func (k *tuner) changed(setting string, was, value int) {
	k.log.Info("Set kernel parameter", "file", "/"+setting, "was", was, "value", value)
}

// max is the limit that t asks for on a machine; 0 leaves it as it is.
func (t Tuning) max(cpus int) int {
	if t.MaxPerCore <= 0 {
		return 0
	}
	// The bound comes before the floor, so a floor above it has no effect on a big machine.
	if t.MaxPerCore > maxScaled/cpus {
		return maxScaled
	}
	return max(t.MaxPerCore*cpus, t.Min)
}

// BeLiberal tells whether the kernel takes TCP packets outside of the window for valid. INVALID
// packets are then no reason for a reset and need not be dropped. It is false if nobody knows.
func BeLiberal(tree sysctl.Tree) bool {
	n, err := tree.Get(settingBeLiberal)
	return err == nil && n != 0
}
