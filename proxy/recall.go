package proxy

import (
	"context"
	"net/netip"
)

// Recaller is a Dataplane that can say which backend session affinity keeps for a client.
type Recaller interface {
	// Recall gives the backend that a client's next connection to a frontend of a ServicePort will go to because an earlier one
	// did, false if there is none. It writes nothing, may run beside all other methods, and holds none of them up.
	Recall(ctx context.Context, port *ServicePort, frontend Frontend, client netip.Addr) (backend netip.AddrPort, found bool, err error)
}
