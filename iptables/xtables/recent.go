package xtables

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// recentLists are the lists of match recent in the network namespace of the thread that opens them.
const recentLists = "/proc/thread-self/net/xt_recent"

// LastSeen is how long ago a client was put into a list of match recent, less than 0 if it is not in it, or there is no such list.
func LastSeen(list string, client netip.Addr) (time.Duration, error) {
	f, err := os.Open(filepath.Join(recentLists, list))
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	defer func() { _ = f.Close() }()
	clock, err := readTicks()
	if err != nil {
		return -1, err
	}
	return lastSeen(f, client, clock)
}

// lastSeen finds the client's line, which has the time in ticks.
func lastSeen(list io.Reader, client netip.Addr, clock ticks) (time.Duration, error) {
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		for i, field := range fields {
			if source, ok := strings.CutPrefix(field, "src="); ok {
				if a, err := netip.ParseAddr(source); err != nil || a != client {
					break
				}
			}
			if field == "last_seen:" && i+1 < len(fields) {
				at, err := strconv.ParseUint(fields[i+1], 10, 64)
				return clock.since(at), err
			}
		}
	}
	return -1, lines.Err()
}

// ticks is the kernel's counter, called jiffies.
type ticks struct {
	length time.Duration // of a tick
	now    uint64
}

// readTicks works it out: on machines of 64 bits the counter is five minutes short of 2^32 when the kernel starts. The resolution of
// the coarse clock is a tick.
func readTicks() (ticks, error) {
	var resolution, now unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &resolution); err != nil {
		return ticks{}, err
	}
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return ticks{}, err
	}
	t := ticks{length: time.Duration(resolution.Nano())}
	t.now = 1<<32 - uint64(5*time.Minute/t.length) + uint64(time.Duration(now.Nano())/t.length)
	return t, nil
}

// since is how long ago the counter was there; the clocks may differ a little.
func (t ticks) since(at uint64) time.Duration { return max(0, time.Duration(int64(t.now-at))*t.length) }
