package nfwatch

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
)

// remembered is how many children are told apart from strangers after they have ended. Their
// messages may be read late, but process numbers come again.
const remembered = 32

// Children are the programs that we started, and the sockets that we opened, and that may have written. A Watch
// asks whose a commit is. The zero value is usable once Program is set; all methods may be called by any goroutine.
type Children struct {
	// Program tells whether our programs may have a name, which the kernel cuts at 15 bytes.
	Program func(name string) bool

	mu      sync.Mutex
	pids    []uint32 // oldest first
	sockets []uint32 // port numbers, oldest first
}

// Start starts a program. The lock is held meanwhile: its first commit may be heard of before its
// number is known here.
func (c *Children) Start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	c.pids = remember(c.pids, uint32(cmd.Process.Pid))
	return nil
}

// StartSocket is told the port number of a socket before it is written to.
func (c *Children) StartSocket(port uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sockets = remember(c.sockets, port)
}

func remember(numbers []uint32, n uint32) []uint32 {
	if len(numbers) == remembered {
		numbers = slices.Delete(numbers, 0, 1)
	}
	return append(numbers, n)
}

// Made tells whether a commit is ours. The process number in it is that of the initial pid
// namespace, which a container does not know. There the port number of the sender's socket serves:
// the kernel takes for it the number that the process has in its own namespace. As others' namespaces may
// use the same numbers, the name must fit too.
func (c *Children) Made(g Generation) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.sockets, g.Port) && (g.Process == "" || g.Process == OwnName()) {
		return true
	}
	if g.Process != "" && !c.Program(g.Process) {
		return false
	}
	return slices.Contains(c.pids, g.Port) || slices.Contains(c.pids, g.PID)
}

// OwnName is what the kernel calls us. Without it our own commit raises a doubt, which does no harm.
func OwnName() string {
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(name), "\n")
}
