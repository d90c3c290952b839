package conntrack

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
)

// settings are the values of a kernel with two CPUs.
func settings(changed map[string]int) map[string]int {
	all := map[string]int{
		settingMax: 65536, settingHashSize: 16384,
		settingEstablished: 432000, settingCloseWait: 60,
		settingUDP: 30, settingUDPStream: 120, settingBeLiberal: 0,
	}
	for k, v := range changed {
		all[k] = v
	}
	return all
}

func kernelWith(t *testing.T, values map[string]int) sysctl.Tree {
	t.Helper()
	tree := sysctl.Tree{Root: t.TempDir()}
	write := func(name, content string) {
		file := filepath.Join(tree.Root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/devices/system/cpu/online", "0-1\n")
	for name, v := range values {
		write(name, strconv.Itoa(v)+"\n")
	}
	return tree
}

func valuesOf(t *testing.T, tree sysctl.Tree) map[string]int {
	t.Helper()
	values := settings(nil)
	for name := range values {
		v, err := tree.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		values[name] = v
	}
	return values
}

func TestTune(t *testing.T) {
	tests := []struct {
		name         string
		tuning       Tuning
		before, want map[string]int
	}{
		{name: "nothing asked"},
		{name: "floor without a value per core", tuning: Tuning{Min: 1 << 20}},
		{
			name:   "per core",
			tuning: Tuning{MaxPerCore: 100000, Min: 131072},
			want:   map[string]int{settingMax: 200000, settingHashSize: 50000},
		},
		{
			name:   "floor",
			tuning: Tuning{MaxPerCore: 32768, Min: 131072},
			want:   map[string]int{settingMax: 131072, settingHashSize: 32768},
		},
		{
			name:   "a greater limit stays, its hash table grows",
			tuning: Tuning{MaxPerCore: 32768, Min: 131072},
			before: map[string]int{settingMax: 500000},
			want:   map[string]int{settingMax: 500000, settingHashSize: 32768},
		},
		{
			name:   "a greater hash table stays",
			tuning: Tuning{MaxPerCore: 32768, Min: 131072},
			before: map[string]int{settingHashSize: 400000},
			want:   map[string]int{settingMax: 131072, settingHashSize: 400000},
		},
		{
			name:   "timeouts",
			tuning: Tuning{TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour, UDP: 10500 * time.Millisecond, UDPStream: time.Millisecond},
			want:   map[string]int{settingEstablished: 86400, settingCloseWait: 3600, settingUDP: 10, settingUDPStream: 1},
		},
		{name: "liberal", tuning: Tuning{TCPBeLiberal: true}, want: map[string]int{settingBeLiberal: 1}},
		{name: "not liberal resets nothing", before: map[string]int{settingBeLiberal: 1}, want: map[string]int{settingBeLiberal: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree := kernelWith(t, settings(tt.before))
			if err := Tune(t.Context(), tree, tt.tuning); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(settings(tt.want), valuesOf(t, tree)); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTuneOfAReadOnlyKernel(t *testing.T) {
	tuning := Tuning{MaxPerCore: 50000, Min: 1, TCPEstablished: time.Minute, UDP: time.Minute, TCPBeLiberal: true}
	readOnly := func(values map[string]int) sysctl.Tree {
		tree := kernelWith(t, settings(values))
		tree.WriteFile = func(string, []byte, os.FileMode) error { return syscall.EROFS }
		return tree
	}
	// The hash table is too small in both, which is no reason to stop.
	good := readOnly(map[string]int{settingMax: 100000, settingEstablished: 60, settingUDP: 60, settingBeLiberal: 1})
	if err := Tune(t.Context(), good, tuning); err != nil {
		t.Errorf("good values: %v", err)
	}
	err := Tune(t.Context(), readOnly(nil), tuning)
	if !errors.Is(err, syscall.EROFS) {
		t.Fatalf("error %v, want %v", err, syscall.EROFS)
	}
	for _, part := range []string{
		settingMax + " from 65536 to 100000", settingEstablished + " from 432000 to 60",
		settingUDP + " from 30 to 60", settingBeLiberal + " from 0 to 1",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), settingHashSize) {
		t.Errorf("error %q names the hash table", err)
	}
}

func TestTuneWithoutConntrackInTheKernel(t *testing.T) {
	err := Tune(t.Context(), kernelWith(t, nil), Tuning{MaxPerCore: 1, Min: 1})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want %v", err, os.ErrNotExist)
	}
	if err := Tune(t.Context(), kernelWith(t, nil), Tuning{}); err != nil {
		t.Errorf("nothing asked: %v", err)
	}
}

func TestLimitIsCapped(t *testing.T) {
	tests := []struct{ perCore, least, cpus, want int }{
		{32768, 131072, 4, 131072},
		{32768, 131072, 8, 262144},
		{32768, 131072, 32, 1 << 20},
		{32768, 131072, 33, 1 << 20},
		{32768, 4 << 20, 2, 4 << 20},
		{32768, 4 << 20, 64, 1 << 20}, // the bound comes first
		{0, 131072, 64, 0},
		{1 << 62, 1, 64, 1 << 20},
	}
	for _, tt := range tests {
		if got := (Tuning{MaxPerCore: tt.perCore, Min: tt.least}).max(tt.cpus); got != tt.want {
			t.Errorf("%+v: limit %d", tt, got)
		}
	}
}

func TestBeLiberal(t *testing.T) {
	for value, want := range map[int]bool{0: false, 1: true} {
		if got := BeLiberal(kernelWith(t, settings(map[string]int{settingBeLiberal: value}))); got != want {
			t.Errorf("value %d: %v", value, got)
		}
	}
	if BeLiberal(kernelWith(t, nil)) {
		t.Error("liberal though nobody knows")
	}
}

// The names of the settings are right if a kernel with connection tracking knows them. /proc/sys/net
// shows the namespace of the thread that looks.
func TestKernelHasTheSettings(t *testing.T) {
	inNamespace(t)
	var tree sysctl.Tree
	for name := range settings(nil) {
		if _, err := tree.Get(name); err != nil {
			t.Error(err)
		}
	}
	timeouts := Tuning{TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour, UDP: time.Minute, UDPStream: time.Hour, TCPBeLiberal: true}
	if err := Tune(t.Context(), tree, timeouts); err != nil {
		t.Fatal(err)
	}
	if !BeLiberal(tree) {
		t.Error("the namespace is not liberal")
	}
}
