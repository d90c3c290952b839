package manifests

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

// The programs under test, of which sluiceBinary is built by TestMain, and the root of the repository.
var (
	sluiceBinary    string
	root            = filepath.Join("..", "..")
	apiserverBinary = filepath.Join("..", "bin", "kube-apiserver")
	kubeProxyBinary = filepath.Join("..", "bin", "kube-proxy")
)

func TestMain(m *testing.M) {
	os.Exit(suite.Main(m, []string{apiserverBinary, kubeProxyBinary}, func(_, sluice string) error {
		sluiceBinary = sluice
		return nil
	}))
}
