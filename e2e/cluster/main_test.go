package cluster

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

// The programs under test; sluiceBinary is built by TestMain.
var (
	sluiceBinary    string
	apiserverBinary = filepath.Join("..", "bin", "kube-apiserver")
)

func TestMain(m *testing.M) {
	os.Exit(suite.Main(m, []string{apiserverBinary}, func(_, sluice string) error {
		sluiceBinary = sluice
		return nil
	}))
}
