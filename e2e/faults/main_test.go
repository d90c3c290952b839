package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The programs under test; sluiceBinary is built by TestMain.
var (
	sluiceBinary    string
	apiserverBinary = filepath.Join("..", "bin", "kube-apiserver")
	lockFile        string
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sluice-faults-")
	if err == nil {
		err = prepare(dir)
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

func prepare(dir string) error {
	// All programs that the suite starts share a lock of their own, and never that of the machine.
	lockFile = filepath.Join(dir, "xtables.lock")
	if err := os.Setenv("XTABLES_LOCKFILE", lockFile); err != nil {
		return err
	}
	if _, err := os.Stat(apiserverBinary); err != nil {
		return fmt.Errorf("the fault suite needs kube-apiserver (run `make apiserver`): %w", err)
	}
	sluiceBinary = filepath.Join(dir, "sluice")
	// The race detector watches the real binary too.
	out, err := exec.Command("go", "build", "-race", "-o", sluiceBinary, "../../cmd/sluice").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build sluice: %w\n%s", err, out)
	}
	return nil
}
