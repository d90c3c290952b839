package sysctl

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// tree is a Tree with the given settings.
func tree(t *testing.T, settings map[string]string) Tree {
	t.Helper()
	root := t.TempDir()
	for name, value := range settings {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Tree{Root: root}
}

const setting = "proc/sys/net/x"

func TestSettingsAreWrittenOnlyWhenTheyMust(t *testing.T) {
	tests := []struct {
		name  string
		set   func(Tree, string, int) (int, error)
		have  string
		want  int
		after string
	}{
		{"equal", Tree.Set, "5\n", 5, "5\n"},
		{"set from less", Tree.Set, "4\n", 5, "5"},
		{"set from more", Tree.Set, "6\n", 5, "5"},
		{"raise from less", Tree.Raise, "4\n", 5, "5"},
		{"never lower", Tree.Raise, "6\n", 5, "6\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := tree(t, map[string]string{setting: tt.have})
			was, err := tt.set(tr, setting, tt.want)
			if err != nil || was != int(tt.have[0]-'0') {
				t.Errorf("was %d, %v", was, err)
			}
			if b, err := os.ReadFile(filepath.Join(tr.Root, setting)); string(b) != tt.after || err != nil {
				t.Errorf("now %q, %v; want %q", b, err, tt.after)
			}
		})
	}
}

func TestReadOnlySettingIsAnErrorOnlyIfItMustChange(t *testing.T) {
	tr := tree(t, map[string]string{setting: "4"})
	tr.WriteFile = func(string, []byte, os.FileMode) error { return syscall.EROFS }
	if _, err := tr.Set(setting, 4); err != nil {
		t.Errorf("equal value: %v", err)
	}
	_, err := tr.Set(setting, 5)
	if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), tr.Root+"/"+setting+" from 4 to 5") {
		t.Errorf("error %v, want the file and both values", err)
	}
}

func TestUnreadableSettings(t *testing.T) {
	tr := tree(t, map[string]string{setting: "many"})
	if _, err := tr.Get(setting); err == nil || !strings.Contains(err.Error(), setting) {
		t.Errorf("error %v, want one that names the file", err)
	}
	_, err := tr.Set("proc/sys/none", 5)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "proc/sys/none") || !strings.Contains(err.Error(), "5") {
		t.Errorf("error %v, want one that names the file and the value", err)
	}
}

func TestRouteLocalnet(t *testing.T) {
	const file = "proc/sys/net/ipv4/conf/all/route_localnet"
	tr := tree(t, map[string]string{file: "0\n"})
	if err := tr.RouteLocalnet(); err != nil {
		t.Fatal(err)
	}
	if n, err := tr.Get(file); n != 1 || err != nil {
		t.Errorf("now %d, %v; want 1", n, err)
	}
}

func TestCPUs(t *testing.T) {
	for list, want := range map[string]int{"0\n": 1, "0-3\n": 4, "0-3,8,10-11\n": 7, "": runtime.NumCPU(), "3-0": runtime.NumCPU(), "a-b": runtime.NumCPU()} {
		if got := tree(t, map[string]string{"sys/devices/system/cpu/online": list}).CPUs(); got != want {
			t.Errorf("%q: %d CPUs, want %d", list, got, want)
		}
	}
	if got := (Tree{Root: t.TempDir()}).CPUs(); got != runtime.NumCPU() {
		t.Errorf("without a list: %d CPUs, want %d", got, runtime.NumCPU())
	}
}

// The names of the files are right if the running kernel knows them.
func TestRunningKernelHasTheSettings(t *testing.T) {
	var kernel Tree
	if _, err := kernel.Get("proc/sys/net/ipv4/conf/all/route_localnet"); err != nil {
		t.Error(err)
	}
	if n := kernel.CPUs(); n < runtime.NumCPU() {
		t.Errorf("%d CPUs, this process may use %d", n, runtime.NumCPU())
	}
}
