package report

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
)

// events collects what a Reporter records.
type events []string

func (e *events) add(service proxy.ServiceName, event Event) {
	*e = append(*e, service.String()+" "+event.Reason+" "+event.Note)
}

func (e *events) want(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, []string(*e)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	*e = nil
}

func name(service, port string) proxy.ServicePortName {
	return proxy.ServicePortName{Namespace: "ns", Name: service, Port: port, Protocol: proxy.TCP}
}

func TestServicePortSetAsideIsReportedUntilItIsServedAgain(t *testing.T) {
	var got events
	r := New(got.add)
	refused := []proxy.SetAside{{Name: name("a", "http"), Err: errors.New("no such target")}}
	const note = "ns/a NotServed port http is not served for IPv4 on this node: no such target"
	r.SetAside(t.Context(), proxy.IPv4, refused)
	got.want(t, note)
	r.SetAside(t.Context(), proxy.IPv4, refused)
	got.want(t)
	r.SetAside(t.Context(), proxy.IPv6, refused)
	got.want(t, "ns/a NotServed port http is not served for IPv6 on this node: no such target")
	r.SetAside(t.Context(), proxy.IPv4, nil)
	got.want(t)
	r.SetAside(t.Context(), proxy.IPv4, refused)
	got.want(t, note)
}

func TestEachLoserOfAnAddressIsToldOnce(t *testing.T) {
	var got events
	r := New(got.add)
	conflict := desired.Conflict{
		Frontend: proxy.FrontendKey{Addr: netip.MustParseAddrPort("192.0.2.1:80"), Protocol: proxy.TCP},
		Owner:    name("a", "http"),
		Losers:   []proxy.ServicePortName{name("b", ""), name("c", "web")},
	}
	r.Contested(t.Context(), proxy.IPv4, []desired.Conflict{conflict})
	got.want(t,
		"ns/b AddressConflict 192.0.2.1:80 (tcp) is not served for port (tcp): Service ns/a had it first",
		"ns/c AddressConflict 192.0.2.1:80 (tcp) is not served for port web: Service ns/a had it first")
	conflict.Losers = append(conflict.Losers, name("d", "http"))
	r.Contested(t.Context(), proxy.IPv4, []desired.Conflict{conflict})
	got.want(t, "ns/d AddressConflict 192.0.2.1:80 (tcp) is not served for port http: Service ns/a had it first")
	r.Contested(t.Context(), proxy.IPv4, nil)
	got.want(t)
	r.Contested(t.Context(), proxy.IPv4, []desired.Conflict{{Frontend: conflict.Frontend, Owner: conflict.Owner, Losers: conflict.Losers[:1]}})
	got.want(t, "ns/b AddressConflict 192.0.2.1:80 (tcp) is not served for port (tcp): Service ns/a had it first")
}
