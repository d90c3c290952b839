package main

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
)

func TestClusterIPThatNobodyServesIsAClearError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := listener.Addr().String()
	refused := func() string { // a port that was free a moment ago
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		return l.Addr().String()
	}()
	defer func() { _ = listener.Close() }()
	clusterIP := func(ip string) func(string) string {
		return func(name string) string {
			if name == "KUBERNETES_PORT_443_TCP_ADDR" {
				return ip
			}
			return ""
		}
	}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for name, c := range map[string]struct {
		host  string
		cidrs []netip.Prefix
		env   func(string) string
		bad   bool
	}{
		"ClusterIP by environment":      {"https://" + refused, nil, clusterIP("127.0.0.1"), true},
		"ClusterIP by range":            {"https://" + refused, loopback, clusterIP(""), true},
		"ClusterIP that is served":      {"https://" + served, loopback, clusterIP("127.0.0.1"), false},
		"real address, down":            {"https://" + refused, nil, clusterIP("10.96.0.1"), false},
		"environment that knows naught": {"https://" + refused, nil, clusterIP(""), false},
		"name":                          {"https://api.example.com:6443", loopback, clusterIP("10.96.0.1"), false},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkBootstrap(t.Context(), c.host, c.cidrs, c.env, time.Millisecond)
			if (err != nil) != c.bad {
				t.Fatalf("got %v", err)
			}
			if err != nil && (!strings.Contains(err.Error(), refused) || !strings.Contains(err.Error(), "KUBERNETES_SERVICE_HOST")) {
				t.Errorf("%v names neither the address nor the remedy", err)
			}
		})
	}
}

func TestClientConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
current-context: x
`
	if err := os.WriteFile(file, []byte(kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  config.Client
		host string
	}{
		"kubeconfig":        {config.Client{Kubeconfig: file}, "https://192.0.2.1:6443"},
		"overridden server": {config.Client{Kubeconfig: file, Master: "https://192.0.2.2"}, "https://192.0.2.2"},
		"server alone":      {config.Client{Master: "http://192.0.2.3:8080"}, "http://192.0.2.3:8080"},
	} {
		c.cfg.QPS, c.cfg.Burst, c.cfg.ContentType = 7, 8, "application/vnd.kubernetes.protobuf"
		got, err := restConfig(c.cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Host != c.host || got.QPS != 7 || got.Burst != 8 || got.AcceptContentTypes != "application/vnd.kubernetes.protobuf,application/json" {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestNothingToServeFromIsAClearError(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "") // set to nothing is not set
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := restConfig(config.Client{}); err == nil || !strings.Contains(err.Error(), "--manifest-dir") {
		t.Errorf("got %v", err)
	}
}
