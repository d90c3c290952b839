package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// diff runs the command, and gives what it prints and its exit code.
func (n namespace) diff(args ...string) (string, int) {
	n.t.Helper()
	out, err := n.sluice(append([]string{"diff"}, args...)...).CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return string(out), 0
}

func TestKernelDiffNamesWhatIsWrong(t *testing.T) {
	for _, mode := range []struct{ name, harm, named string }{
		{"nftables", "nft delete element ip sluice cluster-ips { 10.96.0.80 }", "missing  set cluster-ips { 10.96.0.80 }  default/web"},
		{"iptables", "iptables-nft -t filter -D SLUICE-FORWARD 1", "missing  table filter, rule -A SLUICE-FORWARD "},
	} {
		t.Run(mode.name, func(t *testing.T) {
			ns := newNamespace(t)
			ns.output("ip", "link", "set", "lo", "up")
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(webManifest), 0o644); err != nil {
				t.Fatal(err)
			}
			flags := []string{"--mode=" + mode.name, "--iptables-backend=nft", "--manifest-dir", dir, "--hostname-override=n1", "--cluster-cidr=10.1.0.0/16"}
			says := func(code int, want string, args ...string) {
				t.Helper()
				if out, got := ns.diff(args...); got != code || !strings.Contains(out, want) || code == 0 && out != "" {
					t.Errorf("diff %v: exit code %d, want %d and %q:\n%s", args, got, code, want, out)
				}
			}
			says(1, "no Sluice that can be asked runs")
			says(1, "--mode: say in which mode", "--manifest-dir", dir)
			says(1, "neither text nor json", "-o", "yaml")

			cmd := ns.sluice(append(flags, "-v=2", "--conntrack-max-per-core=0")...)
			lines := bufio.NewScanner(launch(t, cmd))
			until(t, lines, "Applied snapshot", `family="IPv4"`)
			for out := "nothing has been applied yet"; strings.Contains(out, "nothing has been applied yet"); {
				out, _ = ns.diff() // IPv6 may come later
			}
			says(0, "")
			says(0, "", flags...)
			says(1, "--mode: the proxy of this node runs in mode "+mode.name, "--mode=ipvs")

			// Now nobody mends anything.
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
			says(0, "", flags...)
			ns.output(strings.Fields(mode.harm)...)
			says(2, mode.named, flags...)
			says(2, `"kind": "missing"`, append(flags, "-o", "json")...)
		})
	}
}

// Backend legacy of iptables does not tell that a rule was exchanged for another one of the same size.
func TestKernelHarmThatNobodyNoticesIsFoundAndMended(t *testing.T) {
	ns := newNamespace(t)
	ns.output("ip", "link", "set", "lo", "up")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(webManifest), 0o644); err != nil {
		t.Fatal(err)
	}
	serve := func(flags ...string) (stop func(), lines *bufio.Scanner) {
		cmd := ns.sluice(append(flags, "--mode=iptables", "--iptables-backend=legacy", "--manifest-dir", dir, "-v=2", "--hostname-override=n1",
			"--conntrack-max-per-core=0", "--cluster-cidr=10.1.0.0/16")...)
		lines = bufio.NewScanner(launch(t, cmd))
		until(t, lines, "Applied snapshot", `family="IPv4"`, "servicePorts=1")
		return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }, lines
	}
	harm := func() {
		ns.output("sh", "-ec", `ipt="iptables-legacy -t nat"
			set -- $($ipt -S | grep 10.0.0.2:8080) # -A CHAIN -p tcp -j DNAT --to-destination 10.0.0.2:8080
			n=$($ipt -S $2 | tail -n +2 | grep -n 10.0.0.2:8080)
			$ipt -R $2 ${n%%:*} $3 $4 $5 $6 $7 10.0.0.9:8080`)
	}
	explain := func(want string, code int) {
		t.Helper()
		out, err := ns.sluice("explain", "default/web").Output()
		exit := (*exec.ExitError)(nil)
		if got := errors.As(err, &exit); got != (code != 0) || got && exit.ExitCode() != code || !strings.Contains(string(out), want) {
			t.Errorf("explain: %v, want exit code %d and %q:\n%s", err, code, want, out)
		}
	}
	stop, _ := serve("--kernel-audit-interval=0")
	explain("the kernel agrees, in mode iptables", 0)
	harm()
	explain("no     altered, -A SLUICE-SEP-", 2)
	if out, code := ns.diff(); code != 2 || !strings.Contains(out, "altered  table nat, rule -A SLUICE-SEP-") || !strings.Contains(out, "10.0.0.9:8080") {
		t.Errorf("diff: exit code %d:\n%s", code, out)
	}
	stop()

	stop, lines := serve("--kernel-audit-interval=1s")
	defer stop()
	harm()
	until(t, lines, "Kernel is not as it should be", "differences=1", "10.0.0.2:8080")
	until(t, lines, "Kernel state is in doubt", "an audit found differences")
	until(t, lines, "Applied snapshot", `family="IPv4"`, "full=true")
	explain("the kernel agrees, in mode iptables", 0)
}
