package kernel

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

// As Linux 6.1 writes it.
const written = `Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP C0A83264 9C42 0A60000A 0050 0A010001 1F90 ESTABLISHED     899
UDP C0A83264 0000 0A60000A 0035 0A010001 1F90 UDP             107
TCP fd00:0000:0000:0000:0000:0000:c0a8:3264 9C42 fd00:0000:0000:0000:0000:0000:0a60:000a 0050 fd00:0000:0000:0000:0000:0000:0a01:0001 1F90 SYN_RECV         10
`

func TestConnectionsAreRead(t *testing.T) {
	at := netip.MustParseAddrPort
	want := []Connection{
		{proxy.TCP, at("192.168.50.100:40002"), at("10.96.0.10:80"), at("10.1.0.1:8080"), "ESTABLISHED", 899 * time.Second},
		{proxy.UDP, at("192.168.50.100:0"), at("10.96.0.10:53"), at("10.1.0.1:8080"), "UDP", 107 * time.Second},
		{proxy.TCP, at("[fd00::c0a8:3264]:40002"), at("[fd00::a60:a]:80"), at("[fd00::a01:1]:8080"), "SYN_RECV", 10 * time.Second},
	}
	var got []Connection
	parseConnections(strings.NewReader(written), func(c Connection, err error) bool {
		if err != nil {
			t.Error(err)
		}
		got = append(got, c)
		return true
	})
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	n := 0
	parseConnections(strings.NewReader(written), func(Connection, error) bool { n++; return false })
	if n != 1 {
		t.Errorf("%d after the first was enough", n)
	}
	parseConnections(strings.NewReader("TCP C0A83264 9C42 0A60000A 0050 0A01 1F90 ESTABLISHED 899\n"), func(c Connection, err error) bool {
		if err == nil {
			t.Errorf("%v is no connection", c)
		}
		return true
	})
}
