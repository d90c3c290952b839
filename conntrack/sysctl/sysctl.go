// Package sysctl reads and sets kernel settings that are files with one number, in /proc/sys and
// /sys. It knows nothing of what they are for.
package sysctl

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// Tree is where the settings are. The zero value is the running kernel.
type Tree struct {
	// Root is the directory that holds proc and sys; empty is /.
	Root string

	// WriteFile is used for writing; nil is os.WriteFile.
	WriteFile func(name string, data []byte, perm os.FileMode) error
}

// path is the file of a setting, such as proc/sys/net/ipv4/ip_forward.
func (t Tree) path(setting string) string { return filepath.Join("/", t.Root, setting) }

// Get is the present value of a setting.
func (t Tree) Get(setting string) (int, error) {
	b, err := os.ReadFile(t.path(setting))
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", t.path(setting), err)
	}
	return n, nil
}

// Writable tells whether a setting can be changed: in a container it often cannot.
func (t Tree) Writable(setting string) bool {
	f, err := os.OpenFile(t.path(setting), os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// Set gives a setting a value unless it has it already. It returns what the value was. An error
// names the file and both values.
func (t Tree) Set(setting string, want int) (was int, err error) {
	return t.set(setting, want, func(have int) bool { return have == want })
}

// Raise is Set for a setting that may also be greater.
func (t Tree) Raise(setting string, want int) (was int, err error) {
	return t.set(setting, want, func(have int) bool { return have >= want })
}

func (t Tree) set(setting string, want int, enough func(have int) bool) (was int, err error) {
	have, err := t.Get(setting)
	if err != nil {
		return 0, fmt.Errorf("set to %d: %w", want, err)
	}
	if enough(have) {
		return have, nil
	}
	write := t.WriteFile
	if write == nil {
		write = os.WriteFile
	}
	if err := write(t.path(setting), []byte(strconv.Itoa(want)), 0o644); err != nil {
		return have, fmt.Errorf("set %s from %d to %d: %w", t.path(setting), have, want, err)
	}
	return have, nil
}

// RouteLocalnet lets packets with loopback addresses be routed, which NodePorts on 127.0.0.0/8
// need. Nothing ever resets it: others may need it too.
func (t Tree) RouteLocalnet() error {
	_, err := t.Set("proc/sys/net/ipv4/conf/all/route_localnet", 1)
	return err
}

// CPUs is the number of CPUs of the machine, whatever part of them this process may use; if that
// cannot be read, of those that it may use.
func (t Tree) CPUs() int {
	b, err := os.ReadFile(t.path("sys/devices/system/cpu/online"))
	if err == nil {
		if n, ok := countRanges(strings.TrimSpace(string(b))); ok {
			return n
		}
	}
	return runtime.NumCPU()
}

// countRanges counts the members of a list like "0-3,8,10-11".
func countRanges(list string) (int, bool) {
	total := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		low, err1 := strconv.Atoi(first)
		high, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || low < 0 || high < low {
			return 0, false
		}
		total += high - low + 1
	}
	return total, true
}
