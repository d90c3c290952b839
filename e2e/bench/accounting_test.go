package main

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const rest = " S 17 42 42 0 -1 4194560 9000 800 7 6 150 50 30 20 20 0 9 0 12345 1 2 3"
	want := stat{parent: 17, own: 2 * time.Second, waited: 500 * time.Millisecond}
	for _, name := range []string{"(kube-proxy)", "(a) b (c)", "()"} {
		got, err := parseStat("42 " + name + rest)
		if err != nil || got != want {
			t.Errorf("%s: got %+v (%v), want %+v", name, got, err, want)
		}
	}
	for _, line := range []string{"", "42 name S 17", "42 (name) S 17 42", "42 (name)" + rest[:3] + "x" + rest[3:]} {
		if got, err := parseStat(line); err == nil {
			t.Errorf("%q: got %+v, want an error", line, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	tests := []struct {
		text string
		want status
	}{
		{"Name:\tiptables-restor\nVmPeak:\t 9000 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n", status{"iptables-restor", 2 << 20}},
		{"Name:\tended\nState:\tZ (zombie)\n", status{"ended", 0}},
	}
	for _, test := range tests {
		got, err := parseStatus([]byte(test.text))
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(status{})); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	for _, text := range []string{"", "VmHWM:\t2048 kB\n", "Name:\tx\nVmHWM:\tmuch\n"} {
		if got, err := parseStatus([]byte(text)); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestTreeCPUAddsDescendantsButNotStrangers(t *testing.T) {
	stats := map[int]stat{
		1: {parent: 0, own: 1000},
		2: {parent: 1, own: 1, waited: 2},
		3: {parent: 2, own: 4, waited: 8},
		4: {parent: 3, own: 16},
		5: {parent: 1, own: 2000, waited: 2000},
	}
	if got := treeCPU(2, stats); got != 31 {
		t.Errorf("got %d, want 31", got)
	}
}

func TestOwnProcessIsRead(t *testing.T) {
	s, err := readStat(os.Getpid())
	if err != nil || s.parent != os.Getppid() {
		t.Errorf("got %+v (%v), want parent %d", s, err, os.Getppid())
	}
	st, err := readStatus(os.Getpid())
	if err != nil || st.peak == 0 {
		t.Errorf("got %+v (%v), want some memory", st, err)
	}
	if _, err := cpu(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestEndedProcessHasNoCPU(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if got, err := cpu(cmd.Process.Pid); err == nil {
		t.Errorf("got %v, want an error", got)
	}
}

func TestCensusCountsChildrenOfAnotherProgram(t *testing.T) {
	self, err := readStatus(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	c := &census{pid: os.Getpid(), name: self.name, strangers: map[int]bool{}}
	child := startCat(t)
	c.look()
	want, err := readStatus(child)
	if err != nil {
		t.Fatal(err)
	}
	if c.peak == 0 || c.peak > want.peak {
		t.Errorf("got %d bytes, want up to %d", c.peak, want.peak)
	}
	if c.strangers[child] || !c.strangers[os.Getpid()] {
		t.Error("the child is taken for a stranger, or the parent is not")
	}

	c = &census{pid: os.Getpid(), name: want.name, strangers: map[int]bool{}}
	c.look()
	if c.peak != 0 {
		t.Errorf("a child that is still its parent's program counts %d bytes", c.peak)
	}
}

// startCat starts a program that waits until the test ends.
func startCat(t *testing.T) (pid int) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return cmd.Process.Pid
}
