package nft

import (
	"os/exec"
	"slices"
	"sync"
)

// remembered is how many children are told apart from strangers after they have ended. Their
// messages may be read late, but process numbers come again.
const remembered = 32

// children are the programs that we started, and the sockets that we opened, and that may have written. Watch asks it whose a commit is.
type children struct {
	mu      sync.Mutex
	pids    []uint32 // oldest first
	sockets []uint32 // port numbers, oldest first
}

// start starts a program. The lock is held meanwhile: its first commit may be heard of before its
// number is known here.
func (c *children) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	c.pids = remember(c.pids, uint32(cmd.Process.Pid))
	return nil
}

// startSocket is told the port number of a socket before it is written to.
func (c *children) startSocket(port uint32) {
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
