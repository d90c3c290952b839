package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// asCommand makes the test binary be the command itself.
const asCommand = "SLUICE_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// namespace is a network namespace that lives as long as a process in it.
type namespace struct {
	t   *testing.T
	pid string
}

func newNamespace(t *testing.T) namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root to make a network namespace: run the tests as root")
	}
	cmd := exec.Command("cat") // lives until its input ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = hold.Close()
		_ = cmd.Wait()
	})
	return namespace{t, strconv.Itoa(cmd.Process.Pid)}
}

// patience is how long a program may run: it ends then, and what a test waits for never comes.
const patience = 2 * time.Minute

// command is a program in the namespace.
func (n namespace) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	n.t.Cleanup(cancel)
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/proc/" + n.pid + "/ns/net"}, args...)...)
}

// sluice is this program in the namespace.
func (n namespace) sluice(args ...string) *exec.Cmd {
	cmd := n.command(append([]string{os.Args[0]}, args...)...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

func (n namespace) output(args ...string) string {
	n.t.Helper()
	out, err := n.command(args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

// until reads lines until one holds all parts.
func until(t *testing.T, lines *bufio.Scanner, parts ...string) {
	t.Helper()
	var seen []string
	for lines.Scan() {
		line := lines.Text()
		seen = append(seen, line)
		found := true
		for _, part := range parts {
			found = found && strings.Contains(line, part)
		}
		if found {
			return
		}
	}
	t.Fatalf("no line with %q in:\n%s", parts, strings.Join(seen, "\n"))
}

// launch starts a program and gives what it logs.
func launch(t *testing.T, cmd *exec.Cmd) io.Reader {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return stderr
}

const webManifest = `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.80, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.2]}]
`

func TestKernelRunServesManifestsLeavesRulesAndCleanupRemovesThem(t *testing.T) {
	for _, mode := range []struct {
		name    string
		list    []string // lists the rules
		backend string   // as listed; %s is its address
		flush   []string
	}{
		{"iptables", []string{"iptables-save", "-t", "nat"}, "--to-destination %s:8080", []string{"iptables", "-t", "nat", "-F"}},
		{"nftables", []string{"nft", "list", "ruleset"}, "%s . 8080", []string{"nft", "flush", "ruleset"}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			ns := newNamespace(t)
			ns.output("ip", "link", "set", "lo", "up")
			dir := t.TempDir()
			write := func(content string) {
				t.Helper()
				if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			wantBackend := func(addr string) {
				t.Helper()
				if rules := ns.output(mode.list...); !strings.Contains(rules, fmt.Sprintf(mode.backend, addr)) {
					t.Errorf("%s is not in the rules:\n%s", addr, rules)
				}
			}
			write(webManifest)

			cmd := ns.sluice("--mode", mode.name, "--manifest-dir", dir, "-v=2", "--hostname-override=n1", "--conntrack-max-per-core=0")
			stderr := launch(t, cmd)
			lines := bufio.NewScanner(stderr)
			until(t, lines, "Applied snapshot", `family="IPv4"`, "servicePorts=1")
			wantBackend("10.0.0.2")
			write(strings.Replace(webManifest, "10.0.0.2", "10.0.0.3", 1))
			until(t, lines, "Applied snapshot", `family="IPv4"`)
			ns.output(mode.flush...)
			until(t, lines, "Kernel state is in doubt", `family="IPv4"`)
			until(t, lines, "Applied snapshot", `family="IPv4"`)

			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(stderr)
			if err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("ended with %v:\n%s", err, rest)
			}
			wantBackend("10.0.0.3")
			if out, err := ns.sluice("cleanup").CombinedOutput(); err != nil {
				t.Errorf("cleanup: %v: %s", err, out)
			}
			for _, save := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
				if rules := ns.output(save); strings.Contains(rules, "SLUICE") {
					t.Errorf("cleanup left:\n%s", rules)
				}
			}
			if rules := ns.output("nft", "list", "tables"); strings.Contains(rules, "sluice") {
				t.Errorf("cleanup left: %s", rules)
			}
		})
	}
}

// A node that can run every mode gets the one that is listed first, and learns why.
func TestKernelAutoChoosesAndSaysWhy(t *testing.T) {
	for name, test := range map[string]struct {
		missing string // program
		want    []string
	}{
		"everything there": {"", []string{`mode="nftables"`, "preferred"}},
		"no nft":           {"nft", []string{`mode="iptables"`, "nftables cannot work here: ", "nft"}},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newNamespace(t)
			cmd := ns.sluice("--init-only", "--manifest-dir", t.TempDir(), "--conntrack-max-per-core=0")
			cmd.Env = append(cmd.Env, "PATH="+pathWithout(t, test.missing))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "Chose the mode") {
					for _, part := range test.want {
						if !strings.Contains(line, part) {
							t.Errorf("no %q in %s", part, line)
						}
					}
					return
				}
			}
			t.Errorf("no mode is chosen: %s", out)
		})
	}
}

// pathWithout is a PATH with the tools that Sluice runs, but for one.
func pathWithout(t *testing.T, missing string) string {
	t.Helper()
	dir := t.TempDir()
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, backend := range []string{"-nft", "-legacy"} {
			for _, suffix := range []string{"", "-save", "-restore"} {
				link(t, dir, family+backend+suffix)
			}
		}
	}
	if missing != "nft" {
		link(t, dir, "nft")
	}
	return dir
}

func link(t *testing.T, dir, program string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, filepath.Join(dir, program)); err != nil {
		t.Fatal(err)
	}
}

// The lock of the legacy backend may be held when the proxy starts, which says nothing of what the node supports.
func TestKernelBusyHostServesBothFamiliesOrNone(t *testing.T) {
	for _, test := range []struct {
		name  string
		times int // that the tool finds the lock held
		works bool
	}{{"for a while", 3, true}, {"all the time", 1000, false}} {
		t.Run(test.name, func(t *testing.T) {
			ns := newNamespace(t)
			tool, err := exec.LookPath("ip6tables-legacy-restore")
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			script := fmt.Sprintf("#!/bin/sh\necho >> %[1]s/tries\n[ $(wc -l < %[1]s/tries) -gt %[2]d ] && exec %[3]s \"$@\"\n"+
				"cat > /dev/null\necho \"Can't lock /run/xtables.lock: Resource temporarily unavailable\" >&2\nexit 4\n", dir, test.times, tool)
			if err := os.WriteFile(filepath.Join(dir, "ip6tables-legacy-restore"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := ns.sluice("--init-only", "--manifest-dir", dir, "--conntrack-max-per-core=0", "--mode=iptables", "--iptables-backend=legacy")
			cmd.Env = append(cmd.Env, "PATH="+dir+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if works := err == nil; works != test.works || strings.Contains(string(out), "IPv4 alone") {
				t.Errorf("ended with %v:\n%s", err, out)
			}
		})
	}
}

// A program that fails says nothing of what the node supports, one that is not there says it all.
func TestKernelHostServesIPv4AloneOnlyWithoutToolsForIPv6(t *testing.T) {
	for _, test := range []struct {
		name  string
		saver string // of IPv6; empty: there are no programs for IPv6 at all
		works bool
	}{{"tools missing", "", true}, {"tools fail", "#!/bin/sh\necho 'Cannot fork' >&2\nexit 1\n", false}} {
		t.Run(test.name, func(t *testing.T) {
			ns, dir := newNamespace(t), t.TempDir()
			for _, suffix := range []string{"", "-restore", "-save"} {
				tool, err := exec.LookPath("iptables-nft" + suffix)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(tool, filepath.Join(dir, "iptables-nft"+suffix)); err != nil {
					t.Fatal(err)
				}
			}
			path := dir
			if test.saver != "" {
				for _, name := range []string{"ip6tables-nft-save", "ip6tables-legacy-save"} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(test.saver), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				path += ":" + os.Getenv("PATH")
			}
			cmd := ns.sluice("--init-only", "--mode=iptables", "--manifest-dir", t.TempDir(), "--conntrack-max-per-core=0")
			cmd.Env = append(cmd.Env, "PATH="+path)
			out, err := cmd.CombinedOutput()
			if works := err == nil; works != test.works || strings.Contains(string(out), "IPv4 alone") != test.works {
				t.Errorf("ended with %v:\n%s", err, out)
			}
		})
	}
}

// Neither is the kernel tuned for a mode that cannot work, nor connection tracking before the mode's rules have
// loaded it.
func TestKernelIsNotTunedForAModeThatCannotWork(t *testing.T) {
	cmd := newNamespace(t).sluice("--init-only", "--manifest-dir", t.TempDir(), "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-close-wait=1234s")
	cmd.Env = append(cmd.Env, "PATH="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Contains(string(out), "Set kernel parameter") {
		t.Errorf("ended with %v:\n%s", err, out)
	}
}

func TestKernelTCPBeLiberalKeepsInvalidPackets(t *testing.T) {
	ns := newNamespace(t)
	cmd := ns.sluice("--manifest-dir", t.TempDir(), "-v=2", "--conntrack-max-per-core=0", "--conntrack-tcp-be-liberal")
	stderr := launch(t, cmd)
	until(t, bufio.NewScanner(stderr), "Applied snapshot", `family="IPv4"`)
	if rules := ns.output("iptables-save", "-t", "filter"); strings.Contains(rules, "INVALID") {
		t.Errorf("packets are dropped that connection tracking no longer calls invalid:\n%s", rules)
	}
}

func TestKernelHostWithoutIPv6ServesIPv4Alone(t *testing.T) {
	ns := newNamespace(t)
	ns.output("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
	cmd := ns.sluice("--manifest-dir", t.TempDir(), "-v=2", "--conntrack-max-per-core=0")
	stderr := launch(t, cmd)
	lines := bufio.NewScanner(stderr)
	until(t, lines, "Serving IPv4 alone", "disable_ipv6")
	until(t, lines, "Applied snapshot", `family="IPv4"`)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(stderr)
	if err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if bytes.Contains(rest, []byte("IPv6")) {
		t.Errorf("still speaks of IPv6:\n%s", rest)
	}
}

func TestKernelIsNotTouchedWithBadFlags(t *testing.T) {
	ns := newNamespace(t)
	before := ns.output("nft", "list", "ruleset")
	out, err := ns.sluice("--manifest-dir=/m", "--mode=none", "--oom-score-adj=2000").CombinedOutput()
	if err == nil {
		t.Error("exit code 0")
	}
	for _, part := range []string{"--mode", "--oom-score-adj"} {
		if !bytes.Contains(out, []byte(part)) {
			t.Errorf("nothing of %s in %s", part, out)
		}
	}
	if bytes.Contains(out, []byte("Usage")) {
		t.Errorf("usage is printed:\n%s", out)
	}
	if after := ns.output("nft", "list", "ruleset"); after != before {
		t.Errorf("the kernel has changed:\n%s", after)
	}
}

func TestKernelIsNotTouchedWithoutSomethingToServe(t *testing.T) {
	ns := newNamespace(t)
	const setting = "net.netfilter.nf_conntrack_tcp_timeout_established"
	before := ns.output("sysctl", "-n", setting)
	for _, args := range [][]string{{"--manifest-dir=/does/not/exist"}, {"--kubeconfig=/does/not/exist"}} {
		out, err := ns.sluice(append(args, "--conntrack-tcp-timeout-established=1h")...).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("/does/not/exist")) {
			t.Errorf("%v: got %v: %s", args, err, out)
		}
	}
	if after := ns.output("sysctl", "-n", setting); after != before {
		t.Errorf("%s has become %s", setting, after)
	}
}

// Two processes cannot have one port, and with hard-fail the second says so and ends.
func TestKernelHardFailEndsWhenAnAddressIsTaken(t *testing.T) {
	ns := newNamespace(t)
	ns.output("ip", "link", "set", "lo", "up")
	dir := t.TempDir()
	out, err := ns.sluice("--manifest-dir", dir, "--conntrack-max-per-core=0", "--bind-address-hard-fail",
		"--healthz-bind-address=127.0.0.1:1000", "--metrics-bind-address=127.0.0.1:1000").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("address already in use")) {
		t.Errorf("got %v: %s", err, out)
	}
}

func TestVersionAndModesAreTold(t *testing.T) {
	run := func(args ...string) (string, error) {
		cmd := newCommand()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(io.Discard)
		cmd.SetArgs(args)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	if out, err := run("version"); err != nil || !strings.HasPrefix(out, "sluice "+version()+"\n") {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := run("cleanup", "--mode=none"); err == nil || !strings.Contains(err.Error(), "the modes are "+strings.Join(modeNames(), ", ")) {
		t.Errorf("got %v", err)
	}
	if _, err := run("surprise"); err == nil {
		t.Error("an unknown command is accepted")
	}
}

// Each way to end has its exit code, and JSON is JSON.
func TestKernelCheckTellsWhatGetsInTheWay(t *testing.T) {
	ns := newNamespace(t)
	ns.output("ip", "link", "set", "lo", "up")
	check := func(want int, part string, args ...string) {
		t.Helper()
		cmd := ns.sluice(append([]string{"check", "--mode=iptables", "--iptables-backend=nft"}, args...)...)
		out, err := cmd.Output()
		if code := cmd.ProcessState.ExitCode(); code != want || !strings.Contains(string(out), part) {
			t.Errorf("%v: exit code %d (%v), want %d and %q:\n%s", args, code, err, want, part, out)
		}
		if slices.Contains(args, "json") && !json.Valid(out) {
			t.Errorf("not JSON:\n%s", out)
		}
	}
	ns.output("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.route_localnet=0")
	check(0, "mode iptables")
	rules := ns.output("nft", "list", "ruleset") // iptables has made its tables, without anything in them
	if strings.Contains(rules, "chain") {
		t.Errorf("a check left rules:\n%s", rules)
	}
	check(0, "mode iptables")
	if after := ns.output("nft", "list", "ruleset"); after != rules {
		t.Errorf("a check changed the kernel from\n%s\nto\n%s", rules, after)
	}
	ns.output("iptables-nft", "-t", "nat", "-N", "KUBE-SERVICES")
	ns.output("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-j", "KUBE-SERVICES")
	check(2, "kube-proxy's rules")
	check(2, `"worst": "warning"`, "-o", "json")
	ns.output("sysctl", "-qw", "net.ipv4.ip_forward=0")
	check(1, "net.ipv4.ip_forward is 0")
	check(1, `"worst": "problem"`, "--output", "json")
	check(1, "", "--output=xml")
	check(1, "", "--mode=warp")
	check(1, "", "--service-node-port-range=5")
}

func TestEveryFlagIsExplained(t *testing.T) {
	root := newCommand()
	for _, cmd := range append([]*cobra.Command{root}, root.Commands()...) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s has no help", cmd.Name(), f.Name)
			}
		})
	}
}
