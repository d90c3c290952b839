package kernel

import (
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

var ids = map[proxy.Family][]ID{
	proxy.IPv4: {{Addr: netip.MustParseAddrPort("10.96.0.10:53"), Protocol: proxy.UDP}, {Mark: 0x51002001}},
	proxy.IPv6: {{Addr: netip.MustParseAddrPort("[fd00::a60:a]:80"), Protocol: proxy.SCTP}, {Mark: 1}},
}

// The kernel tells of a server in the attributes that made it.
func TestServersAreReadAsTheyAreWritten(t *testing.T) {
	for f, list := range ids {
		for _, id := range list {
			for _, s := range []Server{{ID: id, Scheduler: "rr"}, {ID: id, Scheduler: "mh", Fallback: true, Timeout: 10800}} {
				body, err := Command{Op: AddServer, Server: s}.encode(f)
				if err != nil {
					t.Fatal(err)
				}
				got, ours, err := decodeServer(netlink.Message{Data: body}, f)
				if err != nil || !ours || got != s {
					t.Errorf("got %+v, %v, %v, want %+v", got, ours, err, s)
				}
				if _, ours, _ := decodeServer(netlink.Message{Data: body}, proxy.IPv6-f); ours {
					t.Errorf("%v is taken for one of %v", s.ID, proxy.IPv6-f)
				}
			}
		}
	}
}

func TestDestsAreReadAsTheyAreWritten(t *testing.T) {
	for f, list := range ids {
		d := Dest{Addr: netip.AddrPortFrom(list[0].Addr.Addr(), 8080), Weight: 3}
		body, err := Command{Op: AddDest, Server: Server{ID: list[0]}, Dest: d}.encode(f)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeDest(netlink.Message{Data: body}, f); err != nil || got.Dest != d {
			t.Errorf("got %+v, %v, want %+v", got, err, d)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for family, list := range ids {
		for _, op := range []Op{AddServer, AddDest} {
			body, err := Command{Op: op, Server: Server{ID: list[0], Scheduler: "rr"}, Dest: Dest{Addr: list[0].Addr}}.encode(family)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(body)
		}
	}
	f.Fuzz(func(_ *testing.T, body []byte) {
		for _, family := range proxy.Families {
			_, _, _ = decodeServer(netlink.Message{Data: body}, family)
			_, _ = decodeDest(netlink.Message{Data: body}, family)
		}
	})
}

func TestErrorsNameWhatIsMissing(t *testing.T) {
	server := Server{ID: ids[proxy.IPv4][0], Scheduler: "foo"}
	for _, test := range []struct {
		err  *Error
		want string
	}{
		{&Error{Command{Op: AddServer, Server: server}, unix.ENOENT}, "the kernel has no scheduler foo: module ip_vs_foo is not loaded and cannot be"},
		{&Error{Command{Op: AddServer, Server: server}, unix.EEXIST}, "add virtual server 10.96.0.10:53/udp (scheduler foo): file exists"},
		{&Error{Command{Op: DeleteDest, Server: server, Dest: Dest{Addr: netip.MustParseAddrPort("10.1.0.1:80")}}, unix.ENOENT},
			"delete backend 10.1.0.1:80 of virtual server 10.96.0.10:53/udp: no such file or directory"},
	} {
		if got := test.err.Error(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
