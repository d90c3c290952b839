package manifests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

// The account of kube-proxy in a cluster of kubeadm.
const kubeadmAccount = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: kube-proxy, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "kubeadm:node-proxier"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-proxier"}
subjects:
- {kind: ServiceAccount, name: kube-proxy, namespace: kube-system}
`

// installKubeadm creates what kubeadm makes of kube-proxy. The test cannot let the size of the connection table be set,
// which belongs to the machine; all else is as there.
func (w *world) installKubeadm(t *testing.T) (config corev1.ConfigMap, daemonSet appsv1.DaemonSet) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "cmd", "sluice", "config", "testdata", "kubeadm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	proxyConfig := "    " + strings.ReplaceAll(strings.Replace(string(text), "maxPerCore: null", "maxPerCore: 0", 1), "\n", "\n    ")
	all := append(objects(t, []byte(kubeadmAccount)),
		kubeadmMakes(t, "KubeProxyConfigMap19", map[string]string{"ControlPlaneEndpoint": w.server(), "ProxyConfig": proxyConfig}),
		kubeadmMakes(t, "KubeProxyDaemonSet19", map[string]string{"Image": "sluice"}))
	for _, o := range all {
		if err := w.create(t.Context(), o); err != nil {
			t.Fatalf("%s: %v", o.GetKind(), err)
		}
	}
	decode(t, all[2], &config)
	decode(t, all[3], &daemonSet)
	return config, daemonSet
}

// kubeadmContainer is the container of kubeadm's DaemonSet, with its ConfigMap and token where kubelet puts them. Only what
// no container has is another: the place of these files.
func (w *world) kubeadmContainer(t *testing.T) container {
	t.Helper()
	config, daemonSet := w.installKubeadm(t)
	pod := daemonSet.Spec.Template.Spec
	spec := pod.Containers[0].DeepCopy()
	dir := t.TempDir()
	token, err := w.api.CoreV1().ServiceAccounts(daemonSet.Namespace).
		CreateToken(t.Context(), pod.ServiceAccountName, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"ca.crt": string(w.plane.RESTConfig().CAData), "token": token.Status.Token}
	places := strings.NewReplacer("/var/lib/kube-proxy", dir, "/var/run/secrets/kubernetes.io/serviceaccount", dir)
	for name, content := range config.Data {
		files[name] = places.Replace(content)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return container{spec: *spec, env: map[string]string{"NODE_NAME": nodeName}, dir: dir}
}

// The DaemonSet and the ConfigMap of kubeadm run Sluice when image and command are swapped, with the rights of kube-proxy.
// A changed ConfigMap ends the process, so that a new one reads it, and one with a mistake does not.
func TestKubeadmRunsSluiceInPlaceOfKubeProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fresh)
	c := w.kubeadmContainer(t)
	r := c.start(t, w.Node)
	eventually(t, "ready", func() error { return w.ready(r) })
	w.wantAPIServer(t, w.Node)
	w.wantAPIServer(t, w.Pods[0])
	for url, want := range map[string]string{
		"http://127.0.0.1:10249/proxyMode": "nftables",
		"http://127.0.0.1:10249/healthz":   "ok",
		"http://127.0.0.1:10249/configz":   `"clusterCIDR":"10.244.0.0/16"`,
	} {
		if a, err := suite.Get(w.Node, url); err != nil || !strings.Contains(a.Body, want) {
			t.Errorf("%s: %v %v, want %s", url, a, err, want)
		}
	}
	r.wantNoComplaints(t)

	config := filepath.Join(c.dir, "config.conf")
	content, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	// kubelet replaces files as a whole.
	replace := func(old, changed string) {
		t.Helper()
		text := strings.Replace(string(content), old, changed, 1)
		if err := os.WriteFile(config+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(config+".new", config); err != nil {
			t.Fatal(err)
		}
	}
	replace(`mode: ""`, "mode: warp")
	eventually(t, "the mistake is told", func() error {
		return contains(r.log(t), "Changed configuration file not used")
	})
	if err := w.ready(r); err != nil {
		t.Errorf("after a change that cannot be used: %v", err)
	}
	replace(`mode: ""`, "mode: iptables")
	if text := r.fails(t); !strings.Contains(text, config+" has changed") {
		t.Errorf("it ended for another reason:\n%s", text)
	}
	r = c.start(t, w.Node)
	eventually(t, "ready in the other mode", func() error { return w.ready(r) })
	w.wantAPIServer(t, w.Pods[0])
	r.stop(t)
}

// ready asks what kubelet asks of Sluice's own DaemonSet; that of kubeadm has no probes.
func (w *world) ready(r *running) error {
	return r.passes(w.daemonSet.Spec.Template.Spec.Containers[0].ReadinessProbe)
}
