package suite

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// healthzPort is that of healthz, on every address of the node.
const healthzPort = 10256

// Sluice is the proxy of a node: one process after another, each with a log. It is for one goroutine.
type Sluice struct {
	*process.Process // the newest; nil while none should run

	host *lab.Host
	dir  string
	logs []*os.File // of every process so far
}

// NewSluice makes a proxy that does not run yet. When the test ends it is stopped, and shows what it said if the
// test failed. A data race fails the test.
func NewSluice(t *testing.T, host *lab.Host) *Sluice {
	s := &Sluice{host: host, dir: t.TempDir()}
	t.Cleanup(func() { s.end(t) })
	return s
}

// Launch runs a command on the node, without waiting for anything.
func (s *Sluice) Launch(t *testing.T, command ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(s.dir, fmt.Sprintf("sluice-%d.log", len(s.logs))))
	if err != nil {
		t.Fatal(err)
	}
	s.logs = append(s.logs, log)
	if s.Process, err = process.Start(s.host.Namespace, log, command[0], command[1:]...); err != nil {
		t.Fatal(err)
	}
}

// AwaitHealthy waits until the newest process says, at one of the node's addresses, that the node is served.
func (s *Sluice) AwaitHealthy(t *testing.T, asker *lab.Host) {
	t.Helper()
	url := fmt.Sprintf("http://%v:%d/healthz", lab.NodeIP, healthzPort)
	Eventually(t, "healthz is 200", func() error {
		select {
		case <-s.Done():
			return fmt.Errorf("sluice ended: %w", s.Err())
		default:
		}
		a, err := Get(asker, url)
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("%s: %d: %s", url, a.Status, a.Body)
		}
		return err
	})
}

// Terminate ends the newest process as its supervisor does.
func (s *Sluice) Terminate(t *testing.T) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Errorf("sluice did not end well after SIGTERM: %v", err)
	}
	s.Process = nil
}

// Said is what the newest process wrote.
func (s *Sluice) Said(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(s.logs[len(s.logs)-1].Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (s *Sluice) end(t *testing.T) {
	if s.Process != nil {
		s.Terminate(t)
	}
	for _, log := range s.logs {
		_ = log.Close()
		text, err := os.ReadFile(log.Name())
		if err != nil {
			t.Error(err)
		}
		name := filepath.Base(log.Name())
		WantNoRace(t, name, text)
		if t.Failed() {
			t.Logf("%s:\n%s", name, lastLines(text, 100))
		}
	}
}

// WantNoRace checks that the race detector has nothing to say in a log.
func WantNoRace(t *testing.T, name string, log []byte) {
	t.Helper()
	if bytes.Contains(log, []byte("DATA RACE")) {
		t.Errorf("sluice has a data race, see %s", name)
	}
}

func lastLines(text []byte, n int) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], nil)
}
