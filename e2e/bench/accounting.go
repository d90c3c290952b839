package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ is 100 on all architectures that Go knows.
const tick = time.Second / 100

// stat is what is needed of /proc/PID/stat.
type stat struct {
	parent int
	own    time.Duration // CPU time of the process
	waited time.Duration // and of its ended children, and theirs, that were waited for
}

// parseStat reads a line of /proc/PID/stat. The name of the program is in parentheses and may hold anything.
func parseStat(line string) (stat, error) {
	end := strings.LastIndexByte(line, ')')
	if end < 0 {
		return stat{}, fmt.Errorf("no name in %q", line)
	}
	fields := strings.Fields(line[end+1:]) // from field 3 on, see proc(5)
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("%d fields after the name in %q", len(fields), line)
	}
	var n [5]int64
	for i, field := range []int{4, 14, 15, 16, 17} {
		var err error
		if n[i], err = strconv.ParseInt(fields[field-3], 10, 64); err != nil {
			return stat{}, fmt.Errorf("field %d: %w", field, err)
		}
	}
	return stat{parent: int(n[0]), own: time.Duration(n[1]+n[2]) * tick, waited: time.Duration(n[3]+n[4]) * tick}, nil
}

func readStat(pid int) (stat, error) {
	line, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(line))
}

// status is what is needed of /proc/PID/status.
type status struct {
	name string
	peak int64 // most memory that was resident at a time, in bytes; 0 for a process that has ended
}

func parseStatus(text []byte) (status, error) {
	var s status
	for line := range bytes.Lines(text) {
		key, value, _ := strings.Cut(string(line), ":")
		switch key {
		case "Name":
			s.name = strings.TrimSpace(value)
		case "VmHWM":
			if _, err := fmt.Sscanf(value, "%d kB", &s.peak); err != nil {
				return status{}, fmt.Errorf("parse %q: %w", line, err)
			}
			s.peak *= 1024
		}
	}
	if s.name == "" {
		return status{}, errors.New("no Name")
	}
	return s, nil
}

func readStatus(pid int) (status, error) {
	text, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return status{}, err
	}
	return parseStatus(text)
}

func procPath(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }

// pids are all processes.
func pids() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var list []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, pid)
		}
	}
	return list, nil
}

// cpu is the CPU time of a process and of all its descendants, alive or ended.
func cpu(pid int) (time.Duration, error) {
	all, err := pids()
	if err != nil {
		return 0, err
	}
	stats := map[int]stat{}
	for _, p := range all {
		if s, err := readStat(p); err == nil { // else it has ended just now
			stats[p] = s
		}
	}
	if _, alive := stats[pid]; !alive {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	return treeCPU(pid, stats), nil
}

func treeCPU(pid int, stats map[int]stat) time.Duration {
	sum := stats[pid].own + stats[pid].waited
	for child, s := range stats {
		if s.parent == pid && child != pid {
			sum += treeCPU(child, stats)
		}
	}
	return sum
}
