package main

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestQuestionsThatCannotBeAnswered(t *testing.T) {
	for name, test := range map[string]struct {
		q    question
		want string
	}{
		"output":          {question{output: "yaml", service: "a/b"}, `--output: "yaml" is neither text nor json`},
		"both":            {question{output: "text", service: "a/b", from: "outside"}, "either a Service, or --from and --to"},
		"service":         {question{output: "text", service: "a"}, `"a" is not NAMESPACE/NAME`},
		"nothing":         {question{output: "text"}, `--to: "" is not IP:PORT/PROTOCOL`},
		"no port":         {question{output: "text", from: "outside", to: "10.0.0.1/tcp"}, `--to: "10.0.0.1/tcp" is not IP:PORT/PROTOCOL`},
		"protocol":        {question{output: "text", from: "outside", to: "10.0.0.1:80/quic"}, "the protocol is none of tcp, udp and sctp"},
		"no source":       {question{output: "text", to: "10.0.0.1:80"}, `--from: "" is none of IP[%INTERFACE], pod:NAMESPACE/NAME and outside`},
		"two IP families": {question{output: "text", from: "fd00::1", to: "10.0.0.1:80"}, "different IP families"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := test.q.check(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestQuestionsSurviveTheWay(t *testing.T) {
	for _, q := range []question{
		{output: "text", from: "fd00::1%veth&x=y", to: "[fd00::2]:80/UDP"},
		{output: "json", service: "a/b", blind: true},
	} {
		if got := questionOf(q.values()); got != q {
			t.Errorf("got %+v, want %+v", got, q)
		}
		if err := q.check(); err != nil {
			t.Error(err)
		}
	}
}

func TestKernelExplainAsksTheProxyOfTheNode(t *testing.T) {
	ns := newNamespace(t)
	ns.output("ip", "link", "set", "lo", "up")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(webManifest), 0o644); err != nil {
		t.Fatal(err)
	}
	fails := func(want string, args ...string) {
		t.Helper()
		out, err := ns.sluice(append([]string{"explain"}, args...)...).CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(string(out), want) {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	says := func(want string, args ...string) {
		t.Helper()
		out, err := ns.sluice(append([]string{"explain"}, args...)...).Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: no %q in\n%s(%v)", args, want, out, err)
		}
	}
	fails("no Sluice that can be asked runs in this network namespace", "default/web")

	cmd := ns.sluice("--mode=nftables", "--manifest-dir", dir, "-v=2", "--hostname-override=n1", "--conntrack-max-per-core=0", "--cluster-cidr=10.1.0.0/16")
	stderr := launch(t, cmd)
	lines := bufio.NewScanner(stderr)
	until(t, lines, "Applied snapshot", `family="IPv4"`, "servicePorts=1")
	offline := []string{"--manifest-dir", dir, "--hostname-override=n1", "--cluster-cidr=10.1.0.0/16"}
	for _, more := range [][]string{nil, offline} {
		says("forwarded: to all endpoints", append(more, "--from=10.1.0.9", "--to=10.96.0.80:80")...)
		says("masquerade  yes", append(more, "--from=outside", "--to=10.96.0.80:80")...)
		says(`"is": "rejected"`, append(more, "--from=10.1.0.9", "--to=10.96.0.80:80/udp", "-o=json")...)
		says("10.96.0.80:80  cluster IP", append(more, "default/web")...)
		fails("this node serves no Service default/bew", append(more, "default/bew")...)
	}
	says("kernel      agrees, in mode nftables", "--from=10.1.0.9", "--to=10.96.0.80:80")
	says("map services { 10.96.0.80 . tcp . 80 }", "default/web")
	says(`"agrees": true`, "default/web", "-o=json")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	fails("no Sluice that can be asked runs in this network namespace", "default/web")
}

// The backend that a client has is known in every mode that this kernel has.
func TestKernelExplainKnowsTheBackendOfAClient(t *testing.T) {
	sticky := strings.Replace(webManifest, "clusterIP: 10.96.0.80,", "clusterIP: 10.96.0.80, sessionAffinity: ClientIP,", 1)
	for _, mode := range []string{"nftables", "iptables"} {
		t.Run(mode, func(t *testing.T) {
			ns := tracedNode(t, "10.0.0.2")
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(sticky), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := ns.sluice("--mode", mode, "--manifest-dir", dir, "-v=2", "--hostname-override=n1", "--conntrack-max-per-core=0")
			until(t, bufio.NewScanner(launch(t, cmd)), "Applied snapshot", `family="IPv4"`, "servicePorts=1")
			says := func(want string) {
				t.Helper()
				out, err := ns.sluice("explain", "--from=192.0.2.2", "--to=10.96.0.80:80").CombinedOutput()
				if err != nil || !strings.Contains(string(out), want) {
					t.Errorf("no %q in\n%s(%v)", want, out, err)
				}
			}
			says("; this one has none yet")
			if err := ns.inside(func() error {
				conn, err := net.DialTimeout("tcp", "10.96.0.80:80", 10*time.Second)
				if err == nil {
					err = conn.Close()
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			says("; this one has 10.0.0.2:8080")
		})
	}
}
