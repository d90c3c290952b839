// Package suite is what the test suites that run the real binary share: its build, a cluster with one node, and
// the process on that node. Suites are in folders of e2e.
package suite

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The programs of Kubernetes, as seen from the folder of a suite.
var (
	APIServer = filepath.Join("..", "bin", "kube-apiserver")
	KubeProxy = filepath.Join("..", "bin", "kube-proxy")
)

var binary = flag.String("sluice", "", "path of the sluice to test, instead of one that is built from the source with the race detector")

// Main builds sluice into a directory of its own, lets prepare have both paths, and runs the tests. It
// returns the exit code; nothing runs if one of the programs in needs is missing.
// The flag -sluice names a binary that is there already, for machines on which a build takes too long.
func Main(m *testing.M, needs []string, prepare func(dir, sluice string) error) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "sluice-suite-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		err = ready(dir, needs, prepare)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func ready(dir string, needs []string, prepare func(dir, sluice string) error) error {
	for _, path := range needs {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("the suite needs a program of Kubernetes (run `make apiserver`): %w", err)
		}
	}
	if *binary != "" {
		return prepare(dir, *binary)
	}
	sluice := filepath.Join(dir, "sluice")
	// The race detector watches the real binary too.
	out, err := exec.Command("go", "build", "-race", "-o", sluice, "../../cmd/sluice").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build sluice: %w\n%s", err, out)
	}
	return prepare(dir, sluice)
}
