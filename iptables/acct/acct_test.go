package acct_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/iptables/acct"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const name = "sluice_test"

func TestKernelObjects(t *testing.T) {
	n := node{t, lab.Start(t, lab.Config{}).Node}
	n.wantAbsent()
	n.do(func() error { return acct.Remove(name) })

	n.do(func() error { return acct.Make(name) })
	n.wantPackets(0)
	n.wantUsed(false)
	n.run("iptables", "-A", "OUTPUT", "-o", "lo", "-p", "udp", "-m", "nfacct", "--nfacct-name", name)
	for range 3 {
		o := n.host.Probe(lab.Probe{To: netip.MustParseAddrPort("127.0.0.1:9"), Protocol: proxy.UDP, Timeout: lab.Patient(5 * time.Second)})
		if o.Result != lab.Refused {
			t.Fatalf("a packet to a closed port: %v", o)
		}
	}
	n.wantPackets(3)
	n.do(func() error { return acct.Make(name) })
	n.wantPackets(3) // it is the same object
	n.wantUsed(true)

	if err := n.host.Do(func() error { return acct.Remove(name) }); err == nil {
		t.Error("an object that a rule uses was removed")
	}
	n.run("iptables", "-F", "OUTPUT")
	n.do(func() error { return acct.RemoveReleased(t.Context(), name) })
	n.wantAbsent()
	n.wantUsed(false)
}

type node struct {
	*testing.T
	host *lab.Host
}

func (n node) do(f func() error) {
	n.Helper()
	if err := n.host.Do(f); err != nil {
		n.Fatal(err)
	}
}

func (n node) run(program string, args ...string) {
	n.Helper()
	if out, err := n.host.Run(program, args...); err != nil {
		n.Fatalf("%s %q: %v: %s", program, args, err, out)
	}
}

func (n node) wantPackets(packets uint64) { n.Helper(); want(n, "packets", acct.Packets, packets) }

func (n node) wantUsed(used bool) { n.Helper(); want(n, "used", acct.Used, used) }

// want reads something of the object.
func want[T comparable](n node, what string, read func(name string) (T, error), want T) {
	n.Helper()
	n.do(func() error {
		if got, err := read(name); got != want || err != nil {
			n.Errorf("%s: %v, want %v: %v", what, got, want, err)
		}
		return nil
	})
}

func (n node) wantAbsent() {
	n.Helper()
	want(n, "there", acct.There, false)
	n.do(func() error {
		if _, err := acct.Packets(name); !errors.Is(err, acct.ErrAbsent) {
			n.Errorf("read what is not there: %v, want ErrAbsent", err)
		}
		return nil
	})
}
