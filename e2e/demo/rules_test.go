package main

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

const saved = `*nat
:PREROUTING ACCEPT [0:0]
:ONE - [0:0]
-A PREROUTING -m comment --comment "not \ours" -j ONE
-A PREROUTING -d 10.96.0.9/32 -j FAR
-A ONE -d 10.96.0.0/16 -p udp -j FAR
-A ONE -d 10.96.0.0/16 -p tcp -m tcp --dport 64:95 -j TWO
-A ONE -m addrtype --dst-type LOCAL -j FAR
-A ONE -j FAR
-A TWO ! -s 10.1.0.0/16 -j MARK --set-xmark 0x4000/0x4000
-A TWO -s 10.1.0.0/16 -j FAR
-A TWO -p tcp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.1.0.10:8080
-A TWO -p tcp -j DNAT --to-destination 10.1.0.11:8080
-A FAR -j DNAT --to-destination 192.0.2.1
COMMIT
`

func TestWalkFollowsOnlyWhatMatches(t *testing.T) {
	path := parse(saved).walk(packet{
		source:   netip.MustParseAddr("192.168.50.100"),
		to:       netip.MustParseAddrPort("10.96.0.80:80"),
		protocol: proxy.TCP,
	})
	want := []string{
		"PREROUTING                        -j ONE",
		" ONE                              -d 10.96.0.0/16 -p tcp --dport 64:95 -j TWO",
		"  TWO                             ! -s 10.1.0.0/16 -j MARK --set-xmark 0x4000/0x4000  (masquerade)",
		"  TWO                             -p tcp probability 0.50 -j DNAT --to-destination 10.1.0.10:8080",
		"  TWO                             -p tcp -j DNAT --to-destination 10.1.0.11:8080",
	}
	if diff := cmp.Diff(want, path); diff != "" {
		t.Errorf("way of the packet (-want +got):\n%s", diff)
	}
}
