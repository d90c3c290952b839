package healthcheck

import (
	"context"
	"net"
	"net/http"
	"net/netip"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/httpserver"
)

// listener serves one address until it is closed.
type listener struct {
	net.Listener
	stop context.CancelFunc
}

// listen opens an address. Only this family is served there: the other one has its own port, with
// other endpoints.
func (p *nodePorts) listen(ctx context.Context, addr netip.Addr, port uint16, handler http.Handler) (*listener, error) {
	network := "tcp4"
	if p.family == proxy.IPv6 {
		network = "tcp6"
	}
	l, err := p.server.cfg.Listen(ctx, network, netip.AddrPortFrom(addr, port).String())
	if err != nil {
		return nil, err
	}
	// What brought us here ends; the port stays until it is closed.
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.serving.Go(func() {
		if err := httpserver.Serve(ctx, l, handler); err != nil {
			klog.FromContext(ctx).Error(err, "Health check node port stands still", "port", port, "family", p.family)
		}
	})
	return &listener{l, stop}, nil
}

// close frees the address at once; requests that are under way may end.
func (l *listener) close() {
	l.stop()
	_ = l.Close()
}
