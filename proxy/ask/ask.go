// Package ask lets root on the node ask a running proxy: HTTP on a socket of the abstract namespace, which is that of the network
// namespace that the proxy serves. It needs no directory to write to, and is gone with the process.
package ask

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/proxy/httpserver"
)

// Name is that of the socket.
const Name = "@sluice"

// Serve answers until ctx ends. As long as another process has the name it waits: whatever is asked is no reason not to serve.
func Serve(ctx context.Context, name string, handler http.Handler) {
	// Without HardFail there is no error.
	_ = httpserver.Run(ctx, httpserver.Config{
		Name: "questions", Network: "unix", Addr: name, Handler: rootOnly(handler), ConnContext: withPeer,
	})
}

// peer is the key of a connection's user.
type peer struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	uid, err := userOf(c)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peer{}, uid)
}

// userOf is who opened the other end, as of then.
func userOf(c net.Conn) (uint32, error) {
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is no unix socket", c)
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if inner != nil {
		return 0, inner
	}
	return cred.Uid, nil
}

// rootOnly refuses everybody but root and the user that runs the proxy. Anyone who is in the network namespace can connect.
func rootOnly(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uid, known := r.Context().Value(peer{}).(uint32)
		if !known || uid != 0 && int(uid) != os.Geteuid() {
			http.Error(w, "only root may ask", http.StatusForbidden)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// NewClient makes a client that talks to a socket of that name, whatever host a URL names.
func NewClient(name string) *http.Client {
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				conn, err := d.DialContext(ctx, "unix", name)
				if errors.Is(err, syscall.ECONNREFUSED) {
					return nil, fmt.Errorf("no Sluice that can be asked runs in this network namespace: %w", err)
				}
				return conn, err
			},
		},
	}
}
