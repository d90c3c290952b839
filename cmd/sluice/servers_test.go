package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
)

// configOf is the configuration that flags make.
func configOf(t *testing.T, args ...string) *config.Config {
	t.Helper()
	options := config.NewOptions(modeNames())
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	options.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := options.Complete(); err != nil {
		t.Fatal(err)
	}
	cfg, err := options.Validate()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestConfigzIsWhatIsInForce(t *testing.T) {
	cfg := configOf(t)
	w := httptest.NewRecorder()
	configz(cfg, mode{name: "nftables"}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/configz", nil))
	var got map[string]v1alpha1.KubeProxyConfiguration
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	k := got["kubeproxy.config.k8s.io"]
	if len(got) != 1 || k.Kind != "KubeProxyConfiguration" || k.APIVersion != "kubeproxy.config.k8s.io/v1alpha1" || k.Mode != "nftables" || k.HealthzBindAddress != "0.0.0.0:10256" {
		t.Errorf("got %+v", got)
	}
	if cfg.Kube.Mode != config.Auto {
		t.Errorf("the configuration itself has changed: mode %s", cfg.Kube.Mode)
	}
}

func TestVerbosityCanBeSet(t *testing.T) {
	put := func(body string) int {
		w := httptest.NewRecorder()
		setVerbosity(w, httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/debug/flags/v", strings.NewReader(body)))
		return w.Code
	}
	defer put("0")
	if code := put("3"); code != http.StatusOK || !klog.V(3).Enabled() || klog.V(4).Enabled() {
		t.Errorf("code %d, V(3) %t, V(4) %t", code, klog.V(3).Enabled(), klog.V(4).Enabled())
	}
	for _, bad := range []string{"", "much", strings.Repeat("1", 100)} {
		if code := put(bad); code != http.StatusBadRequest {
			t.Errorf("%q: code %d", bad, code)
		}
	}
}
