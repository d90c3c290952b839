package vm_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// result is what ./run did.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
}

// run runs a script of sh in a machine, with more settings in the environment of ./run.
func run(t *testing.T, script string, env ...string) result {
	t.Helper()
	return finish(t, exec.Command("./run", "sh", "-c", script), env)
}

func finish(t *testing.T, cmd *exec.Cmd, env []string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), env...)
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func TestCommandRunsAsIfItRanHere(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	script := `pwd; printf '%s\n' "$WORDS"; printf '\0\r\n\377'; echo error >&2; exit 7`
	want := result{here + "\ntwo  'words' and\na line\n\x00\r\n\xff", "error\n", 7}
	if got := run(t, script, "WORDS=two  'words' and\na line"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOutputsInOneFileKeepTheirOrder(t *testing.T) {
	cmd := exec.Command("sh", "-c", `exec ./run sh -c 'echo 1; echo 2 >&2; echo 3; kill -9 $$' 2>&1`)
	want := result{"1\n2\n3\n", "", 128 + 9}
	if got := finish(t, cmd, nil); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOnlyTheOutFolderIsWritten(t *testing.T) {
	lost, kept := t.TempDir(), t.TempDir()
	script := `echo lost >"$LOST/file" && echo kept >"$VM_OUT/file" && cat "$LOST/file" "$VM_OUT/file"`
	got := run(t, script, "LOST="+lost, "VM_OUT="+kept)
	if want := (result{"lost\nkept\n", "", 0}); got != want {
		t.Errorf("inside: got %v, want %v", got, want)
	}
	if _, err := os.Stat(filepath.Join(lost, "file")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file outside of VM_OUT: got %v, want that it does not exist", err)
	}
	if text, err := os.ReadFile(filepath.Join(kept, "file")); string(text) != "kept\n" {
		t.Errorf("the file in VM_OUT: got %q, %v", text, err)
	}
}

// TestMachineHasWhatTestsNeed uses the kernel as tests do: most modules load when they are first used.
func TestMachineHasWhatTestsNeed(t *testing.T) {
	const script = `set -ex
for scheduler in rr wrr lc wlc sed nq sh dh mh lblc lblcr fo ovf; do
	ipvsadm -A -t 192.0.2.1:80 -s $scheduler
	ipvsadm -D -t 192.0.2.1:80
done
ipvsadm -A -t [2001:db8::1]:80
ip netns add other
ip link add one type veth peer name two netns other
ip link add dummy type dummy
ip link add bridge type bridge
nft 'table inet test { map m { type ipv4_addr : verdict; }; chain c { type nat hook prerouting priority -105; ip daddr vmap @m; }; chain d { type nat hook postrouting priority 95; masquerade fully-random; }; }'
for iptables in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
	$iptables -t nat -A POSTROUTING -m comment --comment test -p sctp --dport 80 -j MASQUERADE
	$iptables -A INPUT -m conntrack --ctstate NEW -m recent --name test --set -m statistic --mode random --probability 0.5 -j REJECT
done
modprobe sctp
test -e /proc/net/nf_conntrack
test -e /sys/fs/cgroup/cgroup.controllers
ip -o link show dev lo up | grep -q lo`
	if got := run(t, script); got.code != 0 {
		t.Errorf("exit code %d:\n%s%s", got.code, got.stdout, got.stderr)
	}
}

func TestEndlessCommandEnds(t *testing.T) {
	got := run(t, "sleep infinity", "VM_LIMIT=10s")
	if want := (result{"", "e2e/vm/run: the command still ran after 10s\n", 125}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestDeadMachineSaysWhy(t *testing.T) {
	got := run(t, "echo begun; sync; echo c >/proc/sysrq-trigger; sleep infinity")
	if got.stdout != "begun\n" || got.code != 125 || !strings.Contains(got.stderr, "sysrq triggered crash") {
		t.Errorf("got %v, want exit code 125 and the kernel's log", got)
	}
}

// TestTerminalReachesTheCommand gives ./run a terminal by script(1), whose exit code is the command's.
func TestTerminalReachesTheCommand(t *testing.T) {
	const inside = "stty rows 33 cols 99; ./run sh -c 'stty size; read -r line </dev/tty; echo got $line; exit 9'"
	cmd := exec.Command("script", "--quiet", "--return", "--command", inside, "/dev/null")
	cmd.Stdin = strings.NewReader("typed\n")
	got := finish(t, cmd, nil)
	if !strings.Contains(got.stdout, "33 99\r\n") || !strings.Contains(got.stdout, "got typed\r\n") || got.code != 9 {
		t.Errorf("got %v, want the size, the line and exit code 9", got)
	}
}
