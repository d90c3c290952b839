package faults

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

var (
	sluiceBinary string // built by TestMain
	lockFile     string
)

func TestMain(m *testing.M) {
	os.Exit(suite.Main(m, []string{suite.APIServer}, func(dir, sluice string) error {
		sluiceBinary = sluice
		// All programs that the suite starts share a lock of their own, and never that of the machine.
		lockFile = filepath.Join(dir, "xtables.lock")
		return os.Setenv("XTABLES_LOCKFILE", lockFile)
	}))
}
