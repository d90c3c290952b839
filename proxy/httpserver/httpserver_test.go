package httpserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAddress(t *testing.T) {
	tests := []struct {
		value string
		port  uint16
		want  string
	}{
		{"", 10256, ""},
		{"0.0.0.0", 10256, "0.0.0.0:10256"},
		{"::", 10256, "[::]:10256"},
		{"127.0.0.1:99", 10249, "127.0.0.1:99"},
		{"[::1]:99", 10249, "[::1]:99"},
		{"0.0.0.0", 0, ""},
	}
	for _, tt := range tests {
		if got, err := Address(tt.value, tt.port); got != tt.want || err != nil {
			t.Errorf("Address(%q, %d) = %q, %v; want %q", tt.value, tt.port, got, err, tt.want)
		}
	}
	for _, bad := range []string{"localhost", "localhost:99", ":99", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:http", "::1:99:x"} {
		if got, err := Address(bad, 1); err == nil {
			t.Errorf("Address(%q) = %q, want an error", bad, got)
		}
	}
}

func TestRunServesUntilTheContextEnds(t *testing.T) {
	addr := make(chan string, 1)
	cfg := Config{
		Name: "test", Addr: "127.0.0.1:0",
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }),
		Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
			l, err := Listen(ctx, network, address)
			addr <- l.Addr().String()
			return l, err
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg) }()
	url := "http://" + <-addr
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if string(body) != "hello" || err != nil {
		t.Errorf("body %q, %v", body, err)
	}
	_ = resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := http.Get(url); err == nil {
		t.Error("the server still answers")
	}
}

func TestRunWithoutAddressServesNothing(t *testing.T) {
	if err := Run(t.Context(), Config{HardFail: true}); err != nil {
		t.Error(err)
	}
}

var errTaken = errors.New("address is taken")

// silent is a listener that nobody connects to.
type silent struct{ closed chan struct{} }

func (s silent) Accept() (net.Conn, error) { <-s.closed; return nil, net.ErrClosed }
func (s silent) Close() error              { close(s.closed); return nil }
func (s silent) Addr() net.Addr            { return &net.TCPAddr{} }

func TestRunTriesTheAddressEveryFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var attempts atomic.Int32
		var bound atomic.Int64
		cfg := Config{Name: "test", Addr: "x", Handler: http.NotFoundHandler(),
			Listen: func(context.Context, string, string) (net.Listener, error) {
				if attempts.Add(1) < 3 {
					return nil, errTaken
				}
				bound.Store(int64(time.Since(began)))
				return silent{make(chan struct{})}, nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Run(ctx, cfg) }()
		time.Sleep(time.Minute) // of the bubble's clock
		if attempts.Load() != 3 || time.Duration(bound.Load()) != 10*time.Second {
			t.Errorf("%d attempts, bound after %v; want 3 and 10s", attempts.Load(), time.Duration(bound.Load()))
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestRunEndsWhileItWaitsToTryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		cfg := Config{Name: "test", Addr: "x", Listen: func(context.Context, string, string) (net.Listener, error) { return nil, errTaken }}
		go func() { done <- Run(ctx, cfg) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestRunFailsHardIfAsked(t *testing.T) {
	cfg := Config{Name: "test", Addr: "x", HardFail: true,
		Listen: func(context.Context, string, string) (net.Listener, error) { return nil, errTaken }}
	if err := Run(t.Context(), cfg); !errors.Is(err, errTaken) {
		t.Errorf("error %v, want %v", err, errTaken)
	}
}

func TestServeCutsOffWhatDoesNotEnd(t *testing.T) {
	l, err := Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	hang := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done() // which the end of the connection brings
	})
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, hang) }()
	failed := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String())
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-entered
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
}
