package xtables

import (
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

func TestClientsAreFoundInLists(t *testing.T) {
	const list = "src=0000:0000:0000:0000:0000:0000:0000:0001 ttl: 65 last_seen: 4000 oldest_pkt: 2 4000, 3000\n" +
		"src=10.1.0.11 ttl: 64 last_seen: 4500 oldest_pkt: 1 4500\nsrc=10.1.0.1 ttl: 64 last_seen: 5100 oldest_pkt: 1 5100\n"
	clock := ticks{length: 4 * time.Millisecond, now: 5000}
	for client, want := range map[string]time.Duration{"::1": 4 * time.Second, "10.1.0.11": 2 * time.Second, "10.1.0.1": 0, "10.1.0.2": -1} {
		if got, err := lastSeen(strings.NewReader(list), netip.MustParseAddr(client), clock); got != want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", client, got, err, want)
		}
	}
}

func TestKernelTellsWhenAClientWasSeen(t *testing.T) {
	ns, err := lab.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	localhost := netip.MustParseAddr("127.0.0.1")
	err = ns.Do(func() error {
		if out, err := exec.Command("sh", "-c", "ip link set lo up && iptables-nft -A OUTPUT -p udp -m recent --name SLUICE-TEST --set").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if seen, err := LastSeen("SLUICE-TEST", localhost); seen >= 0 || err != nil {
			t.Errorf("before: %v, %v", seen, err)
		}
		conn, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			return err
		}
		if _, err := conn.Write([]byte("?")); err != nil {
			return err
		}
		seen, err := LastSeen("SLUICE-TEST", localhost)
		if seen < 0 || seen > time.Hour {
			t.Errorf("it was seen %v ago", seen)
		}
		if none, err := LastSeen("SLUICE-NONE", localhost); none >= 0 || err != nil {
			t.Errorf("no such list: %v, %v", none, err)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
