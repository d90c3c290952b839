package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kubeconfigOf names a server that knows one pod, with an address of each family.
func kubeconfigOf(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/api/v1/namespaces/default/pods/web" {
			http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"no such pod"}`, http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(corev1.Pod{
			TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
			Status:   corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.1.0.9"}, {IP: "fd00:1::9"}}},
		})
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	content := `{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a}}], clusters: [{name: a, cluster: {server: "` + server.URL + `"}}]}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPodsAreNamedByTheirAddress(t *testing.T) {
	kubeconfig := kubeconfigOf(t)
	for name, test := range map[string]struct {
		from, to, want, fails string
	}{
		"IPv4":      {"pod:default/web", "10.96.0.80:80", "10.1.0.9", ""},
		"IPv6":      {"pod:default/web", "[fd00:96::1]:80", "fd00:1::9", ""},
		"an IP":     {"10.1.0.7", "10.96.0.80:80", "10.1.0.7", ""},
		"malformed": {"pod:web", "10.96.0.80:80", "", `"pod:web" is not pod:NAMESPACE/NAME`},
		"unknown":   {"pod:default/bew", "10.96.0.80:80", "", "read pod default/bew: "},
		"no --to":   {"pod:default/web", "", "", "--to:"},
	} {
		t.Run(name, func(t *testing.T) {
			q := question{from: test.from, to: test.to, output: "text"}
			err := q.resolve(t.Context(), kubeconfig)
			switch {
			case test.fails != "":
				if err == nil || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("got %v, want %s", err, test.fails)
				}
			case err != nil || q.from != test.want:
				t.Errorf("got %q, %v; want %s", q.from, err, test.want)
			}
		})
	}
	t.Run("without rights", func(t *testing.T) {
		q := question{from: "pod:default/web", to: "10.96.0.80:80"}
		if err := q.resolve(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "takes the right to read pods") {
			t.Errorf("got %v", err)
		}
	})
}
