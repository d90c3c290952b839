package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// fact is a line about where and with what the figures were measured.
type fact struct{ name, value string }

// facts describes the machine and the programs.
func facts(ctx context.Context, cfg config) ([]fact, error) {
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	var memory unix.Sysinfo_t
	if err := unix.Sysinfo(&memory); err != nil {
		return nil, fmt.Errorf("sysinfo: %w", err)
	}
	total := uint64(memory.Totalram) * uint64(memory.Unit)
	list := []fact{
		{"kernel", unix.ByteSliceToString(uname.Release[:]) + ", " + runtime.GOARCH},
		{"CPUs", fmt.Sprintf("%d × %s", runtime.NumCPU(), cpuModel(string(cpuinfo)))},
		{"memory", fmt.Sprintf("%.0f GiB", float64(total)/(1<<30))},
	}
	for _, p := range []struct {
		name, path string
		args       []string
	}{
		{"Sluice", cfg.Sluice, []string{"version"}},
		{"kube-proxy", cfg.KubeProxy, []string{"--version"}},
		{"kube-apiserver", cfg.APIServer, []string{"--version"}},
		{"etcd", "etcd", []string{"--version"}},
		{"iptables", "iptables", []string{"--version"}},
	} {
		v, err := version(ctx, p.path, p.args...)
		if err != nil {
			return nil, err
		}
		list = append(list, fact{p.name, v})
	}
	return append(list, fact{"Go", runtime.Version()}), nil
}

// cpuModel is the model's name in /proc/cpuinfo, which some architectures do not tell.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown model"
}
