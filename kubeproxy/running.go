package kubeproxy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// program is the name of kube-proxy's process.
const program = "kube-proxy"

// Processes tells which kube-proxies run in this network namespace, by their numbers. All says that every process of the node
// was seen; a container sees its own alone, unless it shares those of the node.
func Processes() (running []int, all bool, err error) { return processes("/proc") }

func processes(proc string) (running []int, all bool, err error) {
	here, err := os.Readlink(filepath.Join(proc, "thread-self", "ns", "net"))
	if err != nil {
		return nil, false, fmt.Errorf("find the network namespace: %w", err)
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, false, fmt.Errorf("list processes: %w", err)
	}
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil {
			continue // it has ended
		}
		switch strings.TrimSpace(string(comm)) {
		case "kthreadd": // the parent of the kernel's threads, which belongs to no container
			all = true
		case program:
			if lives(dir) && isHere(dir, here) {
				running = append(running, number)
			}
		}
	}
	return running, all, nil
}

// lives tells whether a process has not ended. One that has may wait for its parent to notice.
func lives(dir string) bool {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// isHere tells whether a process is in a network namespace. One that may not be asked counts as being there.
func isHere(dir, namespace string) bool {
	is, err := os.Readlink(filepath.Join(dir, "ns", "net"))
	if errors.Is(err, fs.ErrNotExist) {
		return false // it has ended
	}
	return err != nil || is == namespace
}
