package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// What is in manifests/, and which of it an installation consists of.
const (
	kustomization = "kustomization.yaml"
	cleanup       = "cleanup.yaml"
)

var installed = []string{"rbac.yaml", "config.yaml", "daemonset.yaml"}

// shipped are the objects that the tests look into.
type shipped struct {
	role      rbacv1.ClusterRole
	config    corev1.ConfigMap
	daemonSet appsv1.DaemonSet
	cleaner   appsv1.DaemonSet
}

func loadShipped(t *testing.T) shipped {
	t.Helper()
	var s shipped
	into := map[string]any{"ClusterRole": &s.role, "ConfigMap": &s.config, "DaemonSet": &s.daemonSet}
	for _, file := range installed {
		for _, document := range documents(t, file) {
			target, ok := into[object(t, document).GetKind()]
			if !ok {
				continue
			}
			if err := yaml.UnmarshalStrict(document, target); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
	if err := yaml.UnmarshalStrict(documents(t, cleanup)[0], &s.cleaner); err != nil {
		t.Fatalf("%s: %v", cleanup, err)
	}
	return s
}

// cleanup is the container that removes every trace.
func (s shipped) cleanup() container {
	return container{spec: s.cleaner.Spec.Template.Spec.InitContainers[0]}
}

// documents are the parts of a file of manifests/.
func documents(t *testing.T, file string) [][]byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "manifests", file))
	if err != nil {
		t.Fatal(err)
	}
	reader := yamlutil.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	var all [][]byte
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, document)
	}
}

func object(t *testing.T, document []byte) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.UnmarshalStrict(document, &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

// The list of kustomize is the list that the tests go by, and nothing in the directory is forgotten.
func TestKustomizationListsWhatIsInstalled(t *testing.T) {
	var k struct {
		APIVersion, Kind string
		Resources        []string
		Images           []struct{ Name, NewName, NewTag string }
	}
	if err := yaml.UnmarshalStrict(documents(t, kustomization)[0], &k); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(installed, k.Resources); diff != "" {
		t.Errorf("resources of %s (-want +got):\n%s", kustomization, diff)
	}
	if k.APIVersion != "kustomize.config.k8s.io/v1beta1" || k.Kind != "Kustomization" {
		t.Errorf("%s is a %s %s", kustomization, k.APIVersion, k.Kind)
	}
	entries, err := os.ReadDir(filepath.Join(root, "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		files = append(files, e.Name())
	}
	want := append(slices.Clone(installed), kustomization, cleanup)
	slices.Sort(want)
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files in manifests/ (-want +got):\n%s", diff)
	}

	pod := loadShipped(t).daemonSet.Spec.Template.Spec
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		if len(k.Images) != 1 || c.Image != k.Images[0].Name {
			t.Errorf("image %q of container %s is not the one that %s replaces", c.Image, c.Name, kustomization)
		}
	}
}
