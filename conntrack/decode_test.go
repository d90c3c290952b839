package conntrack

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// body is the body of a conntrack message about a flow.
func body(family proxy.Family, f Flow) []byte {
	r, start := begin(nil, 0, 0, 0, family)
	r.tuple(attrTupleOriginal, proxy.UDP, f.Original, f.OriginalZone)
	r.tuple(attrTupleReply, proxy.UDP, f.Reply, f.ReplyZone)
	if f.DNAT {
		r.attr(attrStatus, binary.BigEndian.AppendUint32(nil, 1<<5|1<<8))
	}
	r.attr(attrID, binary.BigEndian.AppendUint32(nil, f.ID))
	r.attr16(attrZone, f.Zone)
	m, _, err := nextMessage(r.end(start))
	if err != nil {
		panic(err)
	}
	return m.body
}

func TestDecodeReadsWhatEncodeWrites(t *testing.T) {
	for family, f := range map[proxy.Family]Flow{
		proxy.IPv4: translated(client, dns, podA),
		proxy.IPv6: translated("[2001:db8::1]:1000", "[fd00::10]:53", "[fd01::1]:5353"),
	} {
		f.DNAT = family == proxy.IPv6
		f.ID, f.Zone, f.OriginalZone, f.ReplyZone = 7, 8, 9, 10
		got, ok, err := decodeFlow(body(family, f), family)
		if got != f || !ok || err != nil {
			t.Errorf("got %v, %v, %v; want %v", got, ok, err, f)
		}
		if _, ok, err := decodeFlow(body(family, f), 1-family); ok || err != nil {
			t.Errorf("in the other family: %v, %v; want neither", ok, err)
		}
	}
}

func TestDecodeSkipsIncompleteFlowsAndRefusesBrokenOnes(t *testing.T) {
	whole := body(proxy.IPv4, translated(client, dns, podA))
	if _, ok, err := decodeFlow(whole[:nfHeaderLen], proxy.IPv4); ok || err != nil {
		t.Errorf("without attributes: %v, %v; want neither", ok, err)
	}
	for _, broken := range [][]byte{nil, whole[:3], whole[:nfHeaderLen+2], whole[:len(whole)-3], append(whole[:nfHeaderLen:nfHeaderLen], 3, 0, 1, 0)} {
		if _, ok, err := decodeFlow(broken, proxy.IPv4); ok || !errors.Is(err, errMalformed) {
			t.Errorf("%x: %v, %v; want %v", broken, ok, err, errMalformed)
		}
	}
}

// A table of a million flows passes through here.
func TestDecodeAllocatesNothing(t *testing.T) {
	b := body(proxy.IPv6, translated("[2001:db8::1]:1000", "[fd00::10]:53", "[fd01::1]:5353"))
	allocs := testing.AllocsPerRun(100, func() {
		if _, ok, err := decodeFlow(b, proxy.IPv6); !ok || err != nil {
			t.Fatal(ok, err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations for a flow", allocs)
	}
}

func TestMessageResult(t *testing.T) {
	code := func(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }
	for _, tt := range []struct {
		body []byte
		want error
	}{{code(0), nil}, {code(-int32(unix.ENOENT)), unix.ENOENT}, {nil, errMalformed}} {
		if got := (message{body: tt.body}).result(); !errors.Is(got, tt.want) {
			t.Errorf("result of %x is %v, want %v", tt.body, got, tt.want)
		}
	}
}

// Whatever the kernel might send, decoding ends, and what it accepts can be sent back.
func FuzzDecode(f *testing.F) {
	for _, family := range proxy.Families {
		f.Add(dumpRequest(1, family, true))
		f.Add(appendDelete(nil, 1, proxy.IPv4, translated(client, dns, podA)))
	}
	r, start := begin(nil, 0, 0, 0, proxy.IPv4)
	r.tuple(attrTupleOriginal, proxy.UDP, Tuple(translated(client, dns, podA).Original), 0)
	r.tuple(attrTupleReply, proxy.UDP, translated(client, dns, podA).Reply, 0)
	f.Add(r.end(start))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			m, rest, err := nextMessage(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
			_ = m.result()
			for _, family := range proxy.Families {
				flow, ok, err := decodeFlow(m.body, family)
				if ok && err != nil {
					t.Fatalf("both a flow and an error: %v", err)
				}
				if !ok {
					continue
				}
				again, ok, err := decodeFlow(body(family, flow), family)
				if again != flow || !ok || err != nil {
					t.Fatalf("%v became %v, %v, %v", flow, again, ok, err)
				}
			}
		}
	})
}
