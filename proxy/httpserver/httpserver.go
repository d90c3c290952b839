// Package httpserver runs the small HTTP servers of the proxy: health, metrics and questions. They must not
// take the proxy down with them, so a port that is taken is tried again, and slow or silent
// clients are cut off.
package httpserver

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"k8s.io/klog/v2"
)

const (
	retryInterval = 5 * time.Second

	// grace is how long requests may take after the end; a probe takes milliseconds.
	grace = time.Second
)

// ListenFunc opens a listener, as net.ListenConfig.Listen does.
type ListenFunc func(ctx context.Context, network, address string) (net.Listener, error)

// Listen is the ListenFunc of the operating system.
func Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, network, address)
}

// Config says what to serve where.
type Config struct {
	Name    string // for logs and errors
	Network string // empty is tcp
	Addr    string // host:port; empty serves nothing
	Handler http.Handler

	// ConnContext, if it is not nil, is as in http.Server.
	ConnContext func(ctx context.Context, c net.Conn) context.Context

	// HardFail gives up when the address cannot be bound. Otherwise it is tried every 5 s.
	HardFail bool

	Listen ListenFunc // nil is Listen
}

// Run serves until ctx ends, which is no error, and then waits for requests that are under way,
// for a second at most. It returns at once when there is no address to serve on.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Addr == "" {
		return nil
	}
	if cfg.Listen == nil {
		cfg.Listen = Listen
	}
	logger := klog.FromContext(ctx).WithValues("server", cfg.Name, "address", cfg.Addr)
	if cfg.Network == "" {
		cfg.Network = "tcp"
	}
	for failures := 0; ; failures++ {
		err := listenAndServe(klog.NewContext(ctx, logger), cfg)
		if ctx.Err() != nil {
			return nil
		}
		if cfg.HardFail {
			return fmt.Errorf("serve %s on %s: %w", cfg.Name, cfg.Addr, err)
		}
		if failures == 0 {
			logger.Error(err, "Server stands still", "retryEvery", retryInterval)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryInterval):
		}
	}
}

func listenAndServe(ctx context.Context, cfg Config) error {
	listener, err := cfg.Listen(ctx, cfg.Network, cfg.Addr)
	if err != nil {
		return err
	}
	klog.FromContext(ctx).V(2).Info("Server started")
	return serve(ctx, listener, cfg)
}

// Serve answers on a listener until ctx ends, which is no error, or the listener fails. It closes
// the listener in any case and returns when no request is under way any more.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	return serve(ctx, listener, Config{Handler: handler})
}

func serve(ctx context.Context, listener net.Listener, cfg Config) error {
	server := &http.Server{
		Handler:           cfg.Handler,
		ConnContext:       cfg.ConnContext,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      2 * time.Minute, // a CPU profile takes 30 s
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.New(logWriter{klog.FromContext(ctx)}, "", 0),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if server.Shutdown(deadline) != nil {
		_ = server.Close() // what is still under way loses its connection
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// logWriter takes the complaints of net/http about single connections: of use when looking for
// something, noise otherwise.
type logWriter struct{ logger klog.Logger }

func (w logWriter) Write(line []byte) (int, error) {
	w.logger.V(4).Info("Connection failed", "reason", string(line))
	return len(line), nil
}

// Address completes the address of a server, which is an IP or IP:port, with the port that is
// usual for it. The result is empty, which disables the server, for an empty value and for a usual
// port of 0, as the old flags with a port alone give it.
func Address(value string, port uint16) (string, error) {
	if value == "" || port == 0 {
		return "", nil
	}
	if addr, err := netip.ParseAddr(value); err == nil {
		return net.JoinHostPort(addr.String(), strconv.Itoa(int(port))), nil
	}
	addr, err := netip.ParseAddrPort(value)
	if err != nil || addr.Port() == 0 {
		return "", fmt.Errorf("address %q is neither IP nor IP:port", value)
	}
	return addr.String(), nil
}
