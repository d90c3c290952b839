package manifests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The programs under test, built by TestMain, and the root of the repository.
var (
	sluiceBinary    string
	root            = filepath.Join("..", "..")
	apiserverBinary = filepath.Join("..", "bin", "kube-apiserver")
	kubeProxyBinary = filepath.Join("..", "bin", "kube-proxy")
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sluice-manifests-")
	if err == nil {
		err = build(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func build(dir string) error {
	for _, path := range []string{apiserverBinary, kubeProxyBinary} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("the manifests suite needs a program of Kubernetes (run `make %s`): %w", filepath.Clean(filepath.Join("e2e", "manifests", path)), err)
		}
	}
	sluiceBinary = filepath.Join(dir, "sluice")
	// The race detector watches the real binary too.
	out, err := exec.Command("go", "build", "-race", "-o", sluiceBinary, "../../cmd/sluice").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build sluice: %w\n%s", err, out)
	}
	return nil
}
