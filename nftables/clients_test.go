package nftables

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

func TestClientsAreCountedAsSeldomAsTheirCountCosts(t *testing.T) {
	now, calls, cheap := time.Now(), 0, false
	var failure error
	c := &clients{
		count: func(set string) (int, bool, error) {
			if set != affinity.Name {
				t.Errorf("elements of %s are counted", set)
			}
			calls++
			return calls, cheap, failure
		},
		now: func() time.Time { return now },
	}
	wait := func(d time.Duration, wantCalls int) {
		t.Helper()
		now = now.Add(d)
		n, limit, err := c.get()
		if n != wantCalls || calls != wantCalls || limit != maxClients || !errors.Is(err, failure) {
			t.Errorf("%d clients of %d, error %v, counted %d times, want %d times", n, limit, err, calls, wantCalls)
		}
	}
	wait(0, 1)
	wait(freshCostly-1, 1)
	cheap = true
	wait(1, 2)
	wait(freshCheap-1, 2)
	cheap, failure = false, errors.New("no answer")
	wait(1, 3)
	wait(freshCheap-1, 3)
	wait(1, 4)
}

// startFull makes a lab whose node serves a Service with affinity, and has room for that many clients.
func startFull(t *testing.T, f inFamily, room uint64) *guarded {
	size := &affinity.Size
	before := *size
	*size = room
	t.Cleanup(func() { *size = before })
	return startGuarded(t, f, time.Hour)
}

// When nobody else can be remembered, those that are stay where they are, and all others are balanced as if there were no
// affinity.
func TestKernelFullMapRefusesNobody(t *testing.T) {
	const room = 3
	for _, f := range proxy.Families {
		t.Run(fmt.Sprint(f), func(t *testing.T) {
			g := startFull(t, inFamily(f), room)
			d := newTestDataplane(inFamily(f))
			g.onNode(func() {
				if n, limit, err := d.Clients(); n != 0 || limit != room || err != nil {
					t.Errorf("at first %d clients of %d, %v", n, limit, err)
				}
			})
			clients := g.Client.Addrs(f) // six
			for i, from := range clients {
				seen := map[string]bool{}
				for range 40 {
					for name, to := range g.frontends() {
						o := g.Client.Probe(lab.Probe{To: to, Protocol: proxy.TCP, From: netip.AddrPortFrom(from, 0), Timeout: patience})
						if o.Result != lab.Answered {
							t.Fatalf("client %d -> %s: %v", i, name, o)
						}
						seen[o.Server] = true
					}
				}
				if remembered := i < room; remembered != (len(seen) == 1) {
					t.Errorf("client %d, with room for %d, got the backends %v", i, room, seen)
				}
			}
			g.onNode(func() { wantClients(t, f, room) })
		})
	}
}

// wantClients counts the clients in both ways.
func wantClients(t *testing.T, f proxy.Family, want int) {
	t.Helper()
	table := tableOf(inFamily(f))
	if n, _, err := table.Count(affinity.Name); n != want || err != nil {
		t.Errorf("%d clients, %v, want %d", n, err, want)
	}
	if n, err := table.CountByListing(affinity.Name); n != want || err != nil {
		t.Errorf("%d clients are listed, %v, want %d", n, err, want)
	}
}

// A listing comes in many parts.
func TestKernelManyClientsAreCounted(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		if n, _, err := tableOf(f).Count(affinity.Name); n != 0 || err != nil {
			t.Errorf("without a table: %d clients, %v", n, err)
		}
		mustApply(t, newTestDataplane(f), snapshot(f.node(), wide(3)))
		wantClients(t, proxy.Family(f), 0)
		const many = 20_000
		addClients(t, f, many)
		wantClients(t, proxy.Family(f), many)
	})
}

// addClients remembers clients as packets do.
func addClients(t *testing.T, f inFamily, n int) {
	t.Helper()
	var input strings.Builder
	for i := range n {
		addr := f.addr(fmt.Sprintf("198.18.%d.%d", i>>8, i&0xff))
		fmt.Fprintf(&input, "add element %s %s %s { 1:0 . %v timeout 1h : 1:1 }\n", nft.Family(proxy.Family(f)), Table, affinity.Name, addr)
	}
	file := filepath.Join(t.TempDir(), "clients")
	if err := os.WriteFile(file, []byte(input.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	runNFT(t, "-f", file)
}
