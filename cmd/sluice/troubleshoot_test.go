package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what commands say into docs/troubleshoot.md")

// troubleshooting is a file whose blocks of type console are commands, each with what it says. Three dots stand for any text, and
// alone on a line for any lines.
const troubleshooting = "../../docs/troubleshoot.md"

// TestKernelTroubleshootingIsTrue runs all commands in order on a node that serves docs/examples/troubleshoot.yaml.
func TestKernelTroubleshootingIsTrue(t *testing.T) {
	text, err := os.ReadFile(troubleshooting)
	if err != nil {
		t.Fatal(err)
	}
	session := newSession(t)
	var out bytes.Buffer
	inside, commands := false, 0
	lines := strings.SplitAfter(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		out.WriteString(lines[i])
		line := strings.TrimSpace(lines[i])
		if strings.HasPrefix(line, "```") {
			inside = line == "```console"
		}
		command, ok := strings.CutPrefix(line, "$ ")
		if !inside || !ok {
			continue
		}
		var want strings.Builder
		for i+1 < len(lines) && !strings.HasPrefix(lines[i+1], "$ ") && !strings.HasPrefix(lines[i+1], "```") {
			i++
			want.WriteString(lines[i])
		}
		commands++
		said := session.run(command)
		if matches(want.String(), said) {
			out.WriteString(want.String())
			continue
		}
		out.WriteString(said)
		if !*update {
			t.Errorf("$ %s\nsays\n%s\nbut is written to say\n%s", command, said, want.String())
		}
	}
	if commands < 20 {
		t.Errorf("only %d commands were found", commands)
	}
	if *update {
		if err := os.WriteFile(troubleshooting, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// matches compares what is said with a pattern.
func matches(pattern, said string) bool {
	var b strings.Builder
	b.WriteString("^")
	for line := range strings.Lines(pattern) {
		if strings.TrimSpace(line) == "…" {
			b.WriteString(`(?:.*\n)*`)
			continue
		}
		parts := strings.Split(line, "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		b.WriteString(strings.Join(parts, ".*"))
	}
	return regexp.MustCompile(b.String() + "$").MatchString(said)
}

// session runs commands on a node.
type session struct {
	t    *testing.T
	ns   namespace
	code int // of the last command

}

func newSession(t *testing.T) *session {
	t.Helper()
	examples, err := os.ReadFile("../../docs/examples/troubleshoot.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "services.yaml"), examples, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, ns: tracedNode(t, "10.1.0.11")}
	s.ns.output("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	cmd := s.ns.sluice("--mode=nftables", "--manifest-dir", dir, "-v=2", "--hostname-override=n1", "--cluster-cidr=10.1.0.0/16",
		"--service-cidrs=10.96.0.0/16", "--conntrack-max-per-core=0")
	log := bufio.NewScanner(launch(t, cmd))
	until(t, log, "Applied snapshot", `family="IPv4"`, "servicePorts=5")
	go func() {
		for log.Scan() { // nobody must wait for a reader
		}
	}()
	return s
}

// run is what a command says on both outputs. A trace says it once something was sent.
func (s *session) run(command string) string {
	s.t.Helper()
	words := strings.Fields(command)
	var cmd *exec.Cmd
	switch words[0] {
	case "sluice":
		cmd = s.ns.sluice(words[1:]...)
	case "nft", "iptables-nft", "iptables-legacy":
		cmd = s.ns.command(words...)
	case "echo":
		return fmt.Sprintln(s.code)
	default:
		s.t.Fatalf("the test does not know how to run %s", command)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	var err error
	if len(words) > 1 && words[1] == "trace" {
		err = s.traced(cmd, words)
	} else {
		err = cmd.Run()
	}
	if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
		s.t.Fatal(err)
	}
	s.code = cmd.ProcessState.ExitCode()
	return strings.ReplaceAll(logLine.ReplaceAllString(said.String(), ""), "(sluice.test)", "(sluice)")
}

// logLine has a time, and is no answer.
var logLine = regexp.MustCompile(`(?m)^[IWE]\d{4} .*\n`)

// traced sends something to where a trace looks.
func (s *session) traced(cmd *exec.Cmd, words []string) error {
	to := ""
	for _, word := range words {
		if value, ok := strings.CutPrefix(word, "--to="); ok {
			to = value
		}
	}
	to, protocol, _ := strings.Cut(to, "/")
	if protocol == "" {
		protocol = "tcp"
	}
	done := make(chan struct{})
	defer close(done)
	go func() { // again and again: it is not known when the trace begins to look
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
				_ = s.ns.inside(func() error {
					conn, err := net.DialTimeout(protocol, to, time.Second)
					if err == nil {
						_, err = conn.Write([]byte("?"))
						err = errors.Join(err, conn.Close())
					}
					return err
				})
			}
		}
	}()
	return cmd.Run()
}
