package cluster

import (
	"os"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

// sluiceBinary is built by TestMain.
var sluiceBinary string

func TestMain(m *testing.M) {
	os.Exit(suite.Main(m, []string{suite.APIServer}, func(_, sluice string) error {
		sluiceBinary = sluice
		return nil
	}))
}
