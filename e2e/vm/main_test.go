package vm_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// TestMain installs what ./run needs before any test looks at what ./run says: the first use of it on a machine
// says that it downloads a kernel.
func TestMain(m *testing.M) {
	prepare := exec.Command("./prepare")
	prepare.Stdout, prepare.Stderr = os.Stderr, os.Stderr
	if err := prepare.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e/vm/prepare:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
