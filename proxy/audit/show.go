package audit

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// ErrCannotShow says that the mode cannot show what implements a ServicePort.
var ErrCannotShow = errors.New("the mode cannot show its objects")

// errChanged says that there was another ServicePort when the kernel was looked at.
var errChanged = errors.New("the Service has changed meanwhile, ask again")

// Show lists what implements some frontends of a ServicePort in the kernel. If something is not as it should be it looks again: a
// change may be on its way. Others may look meanwhile, it costs little.
func (a *Auditor) Show(ctx context.Context, f proxy.Family, port *proxy.ServicePort, frontends []proxy.Frontend) ([]proxy.Object, error) {
	shower, ok := a.inspectors[f].(proxy.Shower)
	if !ok {
		return nil, ErrCannotShow
	}
	for n := 1; ; n++ {
		now := a.applied(f)
		if now == nil {
			return nil, ErrNothingApplied
		}
		objects, err := shower.Show(ctx, now.served(), port, frontends)
		if err != nil || n == maxLooks || !slices.ContainsFunc(objects, differs) {
			return objects, err
		}
		switch after := a.applied(f); {
		case after.Snapshot.Get(port.Name) != port:
			return nil, errChanged
		case n > 1 && after.Snapshot == now.Snapshot:
			return objects, nil
		}
		if err := sleep(ctx, a.pause); err != nil {
			return nil, err
		}
	}
}

func differs(o proxy.Object) bool { return o.Differs != nil }

// Recall gives the backend that session affinity keeps for a client, the zero AddrPort if there is none, or the mode cannot say.
func (a *Auditor) Recall(ctx context.Context, f proxy.Family, port *proxy.ServicePort, frontend proxy.Frontend, client netip.Addr) (netip.AddrPort, error) {
	recaller, ok := a.inspectors[f].(proxy.Recaller)
	if !ok || port.Affinity <= 0 {
		return netip.AddrPort{}, nil
	}
	backend, _, err := recaller.Recall(ctx, port, frontend, client)
	return backend, err
}
