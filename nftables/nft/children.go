package nft

import (
	"os/exec"
	"slices"
	"sync"
)

// remembered is how many children are told apart from strangers after they have ended. Their
// messages may be read late, but process numbers come again.
const remembered = 32

// children are the programs that we started and that may have written. Watch asks it whose a commit is.
type children struct {
	mu   sync.Mutex
	pids []uint32 // oldest first
}

// start starts a program. The lock is held meanwhile: its first commit may be heard of before its
// number is known here.
func (c *children) start(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	if len(c.pids) == remembered {
		c.pids = slices.Delete(c.pids, 0, 1)
	}
	c.pids = append(c.pids, uint32(cmd.Process.Pid))
	return nil
}
