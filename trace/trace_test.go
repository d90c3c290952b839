package trace

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// told is all that a sink can be told.
func told(sink Sink) {
	at := netip.MustParseAddrPort
	client, vip, backend := at("10.1.0.7:40000"), at("10.96.0.10:80"), at("10.1.0.1:8080")
	sink.Step(1, nft.Step{
		Family: "ip", Table: "sluice", Chain: "services", Rule: 4, Verdict: "jump lb-2",
		Header: &nft.Header{Protocol: proxy.TCP, From: client, To: vip, TCPFlags: 0x12},
	}, "ip daddr vmap @services", "veth1", "")
	sink.Step(1, nft.Step{Family: "ip", Table: "sluice", Chain: "services", Verdict: "continue"}, "", "", "")
	sink.Step(1, nft.Step{
		Family: "ip", Table: "sluice", Chain: "nat-prerouting", Verdict: "policy accept",
		Header: &nft.Header{Protocol: proxy.TCP, From: client, To: vip, TCPFlags: 0x12}, // as before
	}, "", "veth1", "")
	sink.Lost()
	sink.Connection(client, vip, &conntrack.Entry{
		Protocol: proxy.TCP, Original: conntrack.Tuple{Src: client, Dst: vip}, Reply: conntrack.Tuple{Src: backend, Dst: at("192.168.0.2:31000")},
		State: "SYN_SENT", Left: 2 * time.Minute,
	}, &kernel.Connection{Protocol: proxy.TCP, Client: client, Virtual: vip, Backend: backend, State: "SYN_RECV", Left: time.Minute})
	sink.Connection(client, vip, nil, nil)
}

var names = Names{netip.MustParseAddrPort("10.96.0.10:80"): "default/web", netip.MustParseAddrPort("10.1.0.1:8080"): "endpoint of default/web"}

func TestTextForPeople(t *testing.T) {
	var b bytes.Buffer
	told(NewText(&b, names))
	want := `#1 10.1.0.7:40000 > 10.96.0.10:80 (default/web) tcp syn,ack, in veth1
#1   ip sluice services                 jump lb-2              ip daddr vmap @services
#1   ip sluice nat-prerouting           policy accept
… the kernel had more to tell than could be read
connection 10.1.0.7:40000 > 10.96.0.10:80 (default/web)
  conntrack  to 10.1.0.1:8080 (endpoint of default/web), which sees 192.168.0.2:31000 as the client, SYN_SENT, not answered, forgotten in 2m0s
  ipvs       to 10.1.0.1:8080 (endpoint of default/web), SYN_RECV, forgotten in 1m0s
connection 10.1.0.7:40000 > 10.96.0.10:80 (default/web)
  conntrack  unknown: its packets were refused or dropped, or are not tracked
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJSONForPrograms(t *testing.T) {
	var b bytes.Buffer
	told(JSON{Encoder: json.NewEncoder(&b), Names: names})
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 6 {
		t.Fatalf("%d lines:\n%s", len(lines), b.String())
	}
	for i, want := range []string{`"toName":"default/web","flags":"syn,ack"`, `"verdict":"continue"`, `"verdict":"policy accept"`, `{"lost":true}`, `"seenAs":"192.168.0.2:31000"`, `{"connection":{"client":`} {
		if !json.Valid([]byte(lines[i])) || !strings.Contains(lines[i], want) {
			t.Errorf("line %d has no %s: %s", i, want, lines[i])
		}
	}
}
