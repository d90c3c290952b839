package manifests

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// judge runs a command of e2e/judges.
func judge(t *testing.T, input string, args ...string) []byte {
	t.Helper()
	out, err := judged(input, args...)
	if err != nil {
		t.Fatalf("judges %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// judged is judge for what may be wrong.
func judged(input string, args ...string) ([]byte, error) {
	var complaint strings.Builder
	cmd := exec.Command(judges, args...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), &complaint
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New(cmp.Or(complaint.String(), err.Error()))
	}
	return out, nil
}

// kustomized are the objects of a kustomization of manifests/.
func kustomized(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	return objects(t, judge(t, "", "kustomize", filepath.Join(root, "manifests", dir)))
}

// objects are the documents of a text.
func objects(t *testing.T, text []byte) []*unstructured.Unstructured {
	t.Helper()
	reader := yamlutil.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	var all []*unstructured.Unstructured
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(document, &o.Object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
}

// inOrder sorts objects by kind and name.
func inOrder(all []*unstructured.Unstructured) []*unstructured.Unstructured {
	return slices.SortedFunc(slices.Values(all), func(a, b *unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetKind(), b.GetKind()), cmp.Compare(a.GetName(), b.GetName()))
	})
}

// named is the object of that kind and name.
func named(t *testing.T, all []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	i := slices.IndexFunc(all, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name })
	if i < 0 {
		t.Fatalf("no %s %s", kind, name)
	}
	return all[i]
}
