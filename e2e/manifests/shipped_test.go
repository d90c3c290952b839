package manifests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// The kustomizations of manifests/, and a file beside them.
const (
	fresh   = "overlays/fresh"
	kubeadm = "overlays/kubeadm"
	cleanup = "cleanup.yaml"
)

// shipped are the objects of a fresh installation that the tests look into.
type shipped struct {
	role      rbacv1.ClusterRole
	config    corev1.ConfigMap
	daemonSet appsv1.DaemonSet
	cleaner   appsv1.DaemonSet
}

func loadShipped(t *testing.T, overlay string) shipped {
	t.Helper()
	var s shipped
	all := kustomized(t, overlay)
	decode(t, named(t, all, "ClusterRole", "sluice"), &s.role)
	decode(t, named(t, all, "ConfigMap", "sluice"), &s.config)
	decode(t, named(t, all, "DaemonSet", "sluice"), &s.daemonSet)
	decode(t, cleanupObjects(t)[0], &s.cleaner)
	return s
}

// decode reads an object; it must have no fields that its type does not have.
func decode(t *testing.T, o *unstructured.Unstructured, into any) {
	t.Helper()
	text, err := yaml.Marshal(o.Object)
	if err == nil {
		err = yaml.UnmarshalStrict(text, into)
	}
	if err != nil {
		t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
	}
}

func cleanupObjects(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "manifests", cleanup))
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, text)
}

// cleanup is the container that removes every trace.
func (s shipped) cleanup() container {
	pod := s.cleaner.Spec.Template.Spec
	c := container{spec: pod.InitContainers[0], binds: map[string]string{}}
	for _, v := range pod.Volumes {
		for _, m := range c.spec.VolumeMounts {
			if m.Name == v.Name && v.HostPath != nil && *v.HostPath.Type == corev1.HostPathDirectory {
				c.binds[m.MountPath] = v.HostPath.Path
			}
		}
	}
	return c
}

// env is what kubelet gives a container on the node.
func (s shipped) env(t *testing.T, spec corev1.Container) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, v := range spec.Env {
		switch from := v.ValueFrom; {
		case from.FieldRef != nil && from.FieldRef.FieldPath == "spec.nodeName":
			env[v.Name] = nodeName
		case from.ConfigMapKeyRef != nil && from.ConfigMapKeyRef.Name == s.config.Name && s.config.Data[from.ConfigMapKeyRef.Key] != "":
			env[v.Name] = s.config.Data[from.ConfigMapKeyRef.Key]
		default:
			t.Fatalf("variable %s of container %s has no value: %v", v.Name, spec.Name, from)
		}
	}
	return env
}

// mainContainer is that of the DaemonSet among objects.
func mainContainer(t *testing.T, all []*unstructured.Unstructured) corev1.Container {
	t.Helper()
	i := slices.IndexFunc(all, func(o *unstructured.Unstructured) bool { return o.GetKind() == "DaemonSet" })
	if i < 0 {
		t.Fatal("no DaemonSet")
	}
	var daemonSet appsv1.DaemonSet
	decode(t, all[i], &daemonSet)
	return daemonSet.Spec.Template.Spec.Containers[0]
}

// overlays are the folders of manifests/ that can be applied.
func overlays(t *testing.T) []string {
	t.Helper()
	folders, err := os.ReadDir(filepath.Join(root, "manifests", "overlays"))
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"."}
	for _, f := range folders {
		all = append(all, "overlays/"+f.Name())
	}
	return all
}

// What `kubectl apply -k manifests` installs is the overlay for everybody, with an image that nobody can take for real.
func TestManifestsAreAFreshInstallation(t *testing.T) {
	got, want := kustomized(t, "."), kustomized(t, fresh)
	for _, o := range want {
		for _, list := range []string{"initContainers", "containers"} {
			at := []string{"spec", "template", "spec", list}
			containers, _, err := unstructured.NestedSlice(o.Object, at...)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range containers {
				c.(map[string]any)["image"] = "sluice:unset"
			}
			if len(containers) > 0 {
				if err := unstructured.SetNestedSlice(o.Object, containers, at...); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("manifests (-%s +got):\n%s", fresh, diff)
	}
}

// An overlay of a mode differs from the one that chooses in the mode, and in privileges that the mode does not need.
func TestOverlaysNameModes(t *testing.T) {
	for _, overlay := range overlays(t) {
		mode, isMode := strings.CutPrefix(overlay, "overlays/")
		if !isMode || overlay == fresh || overlay == kubeadm {
			continue
		}
		want, got := loadShipped(t, fresh), loadShipped(t, overlay)
		want.config.Data["mode"] = mode
		given := &want.daemonSet.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add
		*given = capabilitiesOf(mode)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(shipped{})); diff != "" {
			t.Errorf("%s (-%s +got):\n%s", overlay, fresh, diff)
		}
	}
}
