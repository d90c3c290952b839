package kubeproxy

import (
	"net"
	"net/netip"
	"testing"
)

// The lists are those of the running kernel.
func TestConnectionsFromAnAddressAreCounted(t *testing.T) {
	for _, test := range []struct{ network, listen string }{{"tcp4", "127.0.0.87:0"}, {"tcp6", "[::1]:0"}, {"udp4", "127.0.0.87:0"}} {
		t.Run(test.network, func(t *testing.T) {
			addr := netip.MustParseAddrPort(test.listen).Addr()
			count := func() uint32 {
				t.Helper()
				n, err := socketsAt("/proc/thread-self/net", map[netip.Addr]bool{addr: true})
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			before := count()
			server := serve(t, test.network, test.listen)
			if n := count(); n != before {
				t.Errorf("a socket without a connection counts: %d, want %d", n, before)
			}
			from := net.Dialer{}
			if addr.Is4() { // any address of the loopback interface's range is one to come from
				from.LocalAddr = map[string]net.Addr{
					"tcp4": &net.TCPAddr{IP: addr.AsSlice()}, "udp4": &net.UDPAddr{IP: addr.AsSlice()},
				}[test.network]
			}
			conn, err := from.DialContext(t.Context(), test.network, server)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if n := count(); n <= before {
				t.Errorf("with a connection: %d, want more than %d", n, before)
			}
			if n, err := socketsAt("/proc/thread-self/net", map[netip.Addr]bool{netip.MustParseAddr("192.0.2.1"): true}); n > 0 || err != nil {
				t.Errorf("from another address: %d, %v", n, err)
			}
		})
	}
}

// serve listens, and gives its address.
func serve(t *testing.T, network, at string) string {
	t.Helper()
	if network == "udp4" {
		conn, err := net.ListenPacket(network, at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn.LocalAddr().String()
	}
	listener, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

func TestListsOfSocketsThatAreNotThereAreEmpty(t *testing.T) {
	if n, err := socketsAt(t.TempDir(), map[netip.Addr]bool{netip.MustParseAddr("10.96.0.1"): true}); n > 0 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}
