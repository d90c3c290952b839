package main

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/trace"
)

func TestTraceRefusesWhatIsUnbounded(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"nothing":   {nil, []string{`--to: "" is not IP:PORT/PROTOCOL`}},
		"all wrong": {[]string{"--to=10.0.0.1:80", "--from=outside", "--packets=0", "--for=2h", "-o=xml"}, []string{"--from:", "--packets:", "--for:", "--output:"}},
		"families":  {[]string{"--to=10.0.0.1:80", "--from=fd00::1"}, []string{"different IP families"}},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := newCommand()
			cmd.SetArgs(append([]string{"trace"}, test.args...))
			err := cmd.Execute()
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
		})
	}
}

// inside runs a function in the namespace. What it opens stays there.
func (n namespace) inside(do func() error) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		f, err := os.Open("/proc/" + n.pid + "/ns/net")
		if err == nil {
			err = errors.Join(unix.Setns(int(f.Fd()), unix.CLONE_NEWNET), f.Close())
		}
		if err == nil {
			err = do()
		}
		failed <- err
	}()
	return <-failed
}

// tracedNode is a namespace with a route to everywhere, and an endpoint that listens at port 8080.
func tracedNode(t *testing.T, endpoint string) namespace {
	t.Helper()
	ns := newNamespace(t)
	for _, args := range []string{
		"link set lo up", "link add eth0 type veth peer name eth1", "link set eth0 up", "link set eth1 up",
		"address add 192.0.2.2/24 dev eth0", "route add default via 192.0.2.1",
		"link add pod0 type veth peer name pod1", "link set pod0 up", "address add " + endpoint + "/32 dev pod0",
	} {
		ns.output(append([]string{"ip"}, strings.Fields(args)...)...)
	}
	var listener net.Listener
	if err := ns.inside(func() (err error) {
		listener, err = net.Listen("tcp", endpoint+":8080")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	return ns
}

// traced runs a trace while something is sent, and gives what it printed.
func traced(t *testing.T, ns namespace, send func() error, args ...string) string {
	t.Helper()
	cmd := ns.sluice(append([]string{"trace"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout = &out
	lines := bufio.NewScanner(launch(t, cmd))
	until(t, lines, "are followed")
	if err := ns.inside(send); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		t.Log(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %v", args, err)
	}
	return out.String()
}

func TestKernelTraceFollowsPackets(t *testing.T) {
	for _, mode := range []struct{ name, step string }{
		{"nftables", "ip sluice "}, {"iptables", "ip nat SLUICE-"},
	} {
		t.Run(mode.name, func(t *testing.T) {
			ns := tracedNode(t, "10.0.0.2")
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(webManifest), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := ns.sluice("--mode", mode.name, "--manifest-dir", dir, "-v=2", "--hostname-override=n1", "--conntrack-max-per-core=0")
			log := bufio.NewScanner(launch(t, cmd))
			until(t, log, "Applied snapshot", `family="IPv4"`, "servicePorts=1")

			var conn net.Conn
			said := traced(t, ns, func() (err error) {
				conn, err = net.DialTimeout("tcp", "10.96.0.80:80", 10*time.Second)
				return err
			}, "--to=10.96.0.80:80", "--packets=4", "--for=5s")
			t.Cleanup(func() { _ = conn.Close() })
			for _, want := range []string{
				"> 10.96.0.80:80 (default/web) tcp syn, out eth0", mode.step, "10.0.0.2:8080 (endpoint of default/web) > ", "tcp syn,ack",
				"connection " + conn.LocalAddr().String() + " > 10.96.0.80:80 (default/web)", "conntrack  to 10.0.0.2:8080 (endpoint of default/web)", "ESTABLISHED",
			} {
				if !strings.Contains(said, want) {
					t.Errorf("no %q in\n%s", want, said)
				}
			}
			if strings.Contains(said, "sluice-trace") {
				t.Errorf("its own rules are told of:\n%s", said)
			}

			said = traced(t, ns, func() error {
				_, err := net.DialTimeout("tcp", "10.96.0.80:81", 5*time.Second)
				if !errors.Is(err, unix.ECONNREFUSED) {
					return errors.Join(errors.New("is not refused"), err)
				}
				return nil
			}, "--from=192.0.2.2", "--to=10.96.0.80:81", "--packets=1", "--for=5s", "-o=json")
			for _, want := range []string{`"packet":1,`, `"to":"10.96.0.80:81"`, `{"connection":{"client":"192.0.2.2:`} {
				if !strings.Contains(said, want) {
					t.Errorf("no %q in\n%s", want, said)
				}
			}
			if strings.Contains(said, `"conntrack":`) {
				t.Errorf("a refused connection is known:\n%s", said)
			}
			if tables := ns.output("nft", "list", "tables"); strings.Contains(tables, trace.TablePrefix) {
				t.Errorf("left behind:\n%s", tables)
			}
		})
	}
}

// Whoever kills it leaves nothing, and the rules say what they should as long as it lives.
func TestKernelKilledTraceLeavesNothing(t *testing.T) {
	ns := newNamespace(t)
	cmd := ns.sluice("trace", "--to=[fd00::1]:53/udp", "--from=fd00::2")
	until(t, bufio.NewScanner(launch(t, cmd)), "are followed")
	rules := ns.output("nft", "list", "ruleset")
	for _, want := range []string{
		"flags owner", "ip6 saddr fd00::2 ip6 daddr fd00::1 udp dport 53 limit rate 20/second burst 20 packets meta nftrace set 1",
		"ct direction reply ct original ip6 saddr fd00::2 ct original ip6 daddr fd00::1 ct original proto-dst 53",
	} {
		if !strings.Contains(rules, want) {
			t.Errorf("no %q in\n%s", want, rules)
		}
	}
	if out, err := ns.command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Errorf("others cannot flush: %v: %s", err, out)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !errors.As(err, new(*exec.ExitError)) {
		t.Errorf("ended with %v", err)
	}
	deadline := time.Now().Add(10 * time.Second) // the kernel frees what a process had when it has time
	for {
		tables := ns.output("nft", "list", "tables")
		if tables == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind:\n%s", tables)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
