package manifests

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// kubeadmTemplates are the manifests that kubeadm makes kube-proxy of, as its source has them.
func kubeadmTemplates(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("go", "-C", filepath.Join(root, "e2e", "apiserver"), "mod", "download", "-json", "k8s.io/kubernetes").Output()
	var module struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(out, &module)
	}
	if err != nil {
		t.Fatalf("source of kubeadm: %v", err)
	}
	path := filepath.Join(module.Dir, "cmd", "kubeadm", "app", "phases", "addons", "proxy", "manifests.go")
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
			if text, ok := spec.Values[0].(*ast.BasicLit); ok {
				found[spec.Names[0].Name], _ = strconv.Unquote(text.Value)
			}
		}
		return true
	})
	return found
}

// kubeadmMakes is an object of kube-proxy as kubeadm makes it.
func kubeadmMakes(t *testing.T, name string, facts map[string]string) *unstructured.Unstructured {
	t.Helper()
	text, ok := kubeadmTemplates(t)[name]
	if !ok {
		t.Fatalf("kubeadm has no %s any more", name)
	}
	facts["ProxyConfigMap"], facts["ProxyConfigMapKey"] = "kube-proxy", "config.conf"
	var out strings.Builder
	if err := template.Must(template.New(name).Parse(text)).Execute(&out, facts); err != nil {
		t.Fatal(err)
	}
	return objects(t, []byte(out.String()))[0]
}

// kubectlApplies does to an object what kubectl apply does if somebody else made it: it adds and replaces, and removes nothing.
func (w *world) kubectlApplies(t *testing.T, o *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	resource, err := w.resource(o)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	result, err := resource.Patch(t.Context(), o.GetName(), types.StrategicMergePatchType, text, metav1.PatchOptions{FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// applyOverKubeadm makes kubeadm's DaemonSet, and applies the overlay over it.
func applyOverKubeadm(t *testing.T, w *world) appsv1.DaemonSet {
	t.Helper()
	old := kubeadmMakes(t, "KubeProxyDaemonSet19", map[string]string{"Image": "registry.k8s.io/kube-proxy:v1.36.3"})
	if err := w.create(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	var result appsv1.DaemonSet
	decode(t, w.kubectlApplies(t, named(t, kustomized(t, kubeadm), "DaemonSet", "kube-proxy")), &result)
	return result
}

// Of kubeadm's DaemonSet nothing stays that gives Sluice more than the overlay does.
func kubeadmOverlayIsInForce(t *testing.T, w *world) {
	got := applyOverKubeadm(t, w).Spec.Template
	var want appsv1.DaemonSet
	decode(t, named(t, kustomized(t, kubeadm), "DaemonSet", "kube-proxy"), &want)
	main, wanted := got.Spec.Containers[0], want.Spec.Template.Spec.Containers[0]
	if len(got.Spec.Containers) != 1 || len(got.Spec.InitContainers) != 1 {
		t.Errorf("%d and %d containers", len(got.Spec.InitContainers), len(got.Spec.Containers))
	}
	for what, pair := range map[string][2]any{
		"command":          {wanted.Command, main.Command},
		"arguments":        {wanted.Args, main.Args},
		"image":            {wanted.Image, main.Image},
		"security context": {wanted.SecurityContext, main.SecurityContext},
		"labels":           {want.Spec.Template.Labels, got.Labels},
	} {
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s (-overlay +in force):\n%s", what, diff)
		}
	}
	for _, c := range append(slices.Clone(got.Spec.InitContainers), main) {
		for _, m := range c.VolumeMounts {
			if !slices.ContainsFunc(got.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
				t.Errorf("container %s has no volume %s", c.Name, m.Name)
			}
		}
	}
}

// What the overlay makes of kubeadm's DaemonSet serves, with kubeadm's ConfigMap and account and without kubeadm's privileges.
func TestKubeadmOverlayServesWithThePrivilegesThatItGives(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fresh)
	theirs := w.kubeadmContainer(t)
	var result appsv1.DaemonSet
	decode(t, w.kubectlApplies(t, named(t, kustomized(t, kubeadm), "DaemonSet", "kube-proxy")), &result)
	pod := result.Spec.Template.Spec
	container{spec: pod.InitContainers[0], env: theirs.env, dir: theirs.dir}.start(t, w.Node).succeeds(t)
	r := container{spec: pod.Containers[0], env: theirs.env, dir: theirs.dir}.start(t, w.Node)
	r.awaitReady(t)
	w.wantAPIServer(t, w.Node)
	w.wantAPIServer(t, w.Pods[0])
	r.wantNoComplaints(t)
	r.stop(t)
}
