package vm

import (
	"os"
	"strings"
)

// Here tells whether this is the virtual machine, which nobody shares: its clock may be set, and its modules
// removed.
func Here() bool {
	settings, err := os.ReadFile("/proc/cmdline")
	return err == nil && strings.Contains(string(settings), " vm_stage2=")
}
