package manifests

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

var (
	sluiceBinary string // built by TestMain
	root         = filepath.Join("..", "..")
)

func TestMain(m *testing.M) {
	os.Exit(suite.Main(m, []string{suite.APIServer, suite.KubeProxy}, func(_, sluice string) error {
		sluiceBinary = sluice
		return nil
	}))
}
