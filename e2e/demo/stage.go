package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	podPort     = 8080
	servicePort = 80
	nodePort    = 30080

	answerLimit = 5 * time.Second
	patience    = 30 * time.Second
)

var clusterIP = netip.MustParseAddr("10.96.0.80")

// stage is where the demo plays.
type stage struct {
	*lab.Lab
	screen *screen
	sluice string // path of the binary
	mode   string
	dir    string // of YAML files
	log    *os.File
	proxy  *process.Process // nil while it is not running
}

// newStage builds the network and starts Sluice on the node.
func newStage(sluice, mode string) (*stage, error) {
	s := &stage{screen: newScreen(os.Stdout), sluice: sluice, mode: mode}
	var err error
	if s.Lab, err = lab.New(lab.Config{}); err != nil {
		return nil, fmt.Errorf("the demo needs root, to make network namespaces: %w", err)
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) open() (err error) {
	if s.dir, err = os.MkdirTemp("", "sluice-demo-"); err != nil {
		return err
	}
	if s.log, err = os.CreateTemp("", "sluice-demo-*.log"); err != nil {
		return err
	}
	for _, pod := range s.Pods {
		if err := pod.Serve(proxy.TCP, podPort); err != nil {
			return err
		}
	}
	if err := s.write(web{backends: s.Pods}); err != nil {
		return err
	}
	s.proxy, err = process.Start(s.Node.Namespace, s.log, s.sluice,
		"--manifest-dir", s.dir,
		"--mode", s.mode,
		"--hostname-override", "node",
		"--cluster-cidr", lab.ClusterCIDR.String(),
	)
	return err
}

// close removes everything.
func (s *stage) close() error {
	var errs []error
	if s.proxy != nil {
		errs = append(errs, s.stop())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close(), os.Remove(s.log.Name()))
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(append(errs, s.Close())...)
}

func (s *stage) stop() error {
	p := s.proxy
	s.proxy = nil
	if err := p.Stop(); err != nil {
		return fmt.Errorf("sluice ended with %w\n%s", err, s.said())
	}
	return nil
}

// said is the end of Sluice's log.
func (s *stage) said() string {
	text, err := os.ReadFile(s.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(text), "\n")
	return "sluice said:\n" + strings.Join(lines[max(0, len(lines)-20):], "")
}

// write puts the Service into the directory that Sluice watches, replacing what was there at once.
func (s *stage) write(w web) error {
	draft := filepath.Join(s.dir, ".draft")
	if err := os.WriteFile(draft, []byte(w.yaml()), 0o600); err != nil {
		return err
	}
	return os.Rename(draft, filepath.Join(s.dir, "web.yaml"))
}

// await waits until check returns nil.
func (s *stage) await(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.proxy.Done():
			return fmt.Errorf("%s: sluice has ended", what)
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%w)", what, err, context.Cause(ctx))
		}
	}
}

// request is a connection to the address; from one of the client's, unless it is invalid.
func request(to netip.Addr, port uint16, from netip.Addr) lab.Probe {
	return lab.Probe{
		To:       netip.AddrPortFrom(to, port),
		From:     netip.AddrPortFrom(from, 0),
		Protocol: proxy.TCP,
		Timeout:  answerLimit,
	}
}
