package faults

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// program is what serves the node: Sluice in a mode, or kube-proxy in one.
type program struct {
	mode      *suite.Mode // nil for kube-proxy
	kubeProxy *kubeProxy  // nil for Sluice
}

func (p program) isIPVS() bool {
	if p.kubeProxy != nil {
		return p.kubeProxy.mode == "ipvs"
	}
	return p.mode.Mode == "ipvs"
}

func programNamed(t *testing.T, name string) program {
	t.Helper()
	if i := slices.IndexFunc(suite.Modes, func(m suite.Mode) bool { return m.Name == name }); i >= 0 {
		return program{mode: &suite.Modes[i]}
	}
	if p, there := kubeProxies[name]; there {
		return program{kubeProxy: &p}
	}
	t.Fatalf("there is no program %s", name)
	return program{}
}

// circuit is a way from program to program on one node.
type circuit struct {
	name  string
	stops []string
}

// needsOwnPorts tells whether IPVS is on the way, which may mix up the answers of connections that share a port.
func (c circuit) needsOwnPorts(t *testing.T) bool {
	return slices.ContainsFunc(c.stops, func(stop string) bool { return programNamed(t, stop).isIPVS() })
}

// circuits go every way between two of Sluice's modes, and between each of them and each mode of kube-proxy, once.
var circuits = []circuit{
	{"modes", []string{"nftables", "iptables-nft", "iptables-legacy", "nftables", "iptables-legacy", "iptables-nft", "nftables"}},
	between("kube-proxy-iptables-nft"),
	between("kube-proxy-iptables-legacy"),
	between("kube-proxy-nftables"),
}

// between goes to and fro between kube-proxy and modes of Sluice.
func between(kubeProxy string) circuit {
	return circuit{kubeProxy, []string{"nftables", kubeProxy, "iptables-nft", kubeProxy, "iptables-legacy", kubeProxy, "nftables"}}
}

// TestSwitching changes what serves the node, again and again, under load.
func TestSwitching(t *testing.T) { goRound(t, circuits) }

func goRound(t *testing.T, circuits []circuit) {
	for _, c := range circuits {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, *programNamed(t, c.stops[0]).mode)
			s := &story{T: t, world: w, load: w.startTrafficOf(t, switchingWorkers, c.needsOwnPorts(t))}
			for i, from := range c.stops[:len(c.stops)-1] {
				to := c.stops[i+1]
				before := s.load.lost()
				s.change(programNamed(t, from), programNamed(t, to))
				if n := s.load.lost() - before; n > 0 {
					t.Errorf("%s → %s: %d connections were lost: %q", from, to, n, s.load.lostOnes())
				}
				s.note("%s → %s is done, %s", from, to, s.load.underway())
			}
			s.load.end()
		})
	}
}

// change lets another program serve the node, as docs/migrate-from-kube-proxy.md and docs/operate.md say. Nothing of the
// former one is left in the end, and only clients with affinity may get another backend.
func (s *story) change(from, to program) {
	s.Helper()
	over := s.load.excuse(sticky)
	if from.kubeProxy != nil {
		s.sluice.Kill()
		s.sluice.Process = nil
	} else {
		s.stop(s.T)
	}
	s.note("the former program has ended")
	if to.kubeProxy != nil {
		s.launch(s.T, to.kubeProxy.command(s)...)
		s.awaitKubeProxy(to.kubeProxy)
	} else {
		s.mode, s.kernel = *to.mode, kernels[to.mode.Mode]
		s.start(s.T, "--ipvs-drain-limit", drainLimit)
	}
	s.note("the new one serves")
	s.load.pass()
	s.load.speak() // those of the former program go on
	s.note("the load went on")
	s.cleanUp(from, to)
	s.note("what the former one left is removed")
	s.awaitNothingOf(from, to)
	s.load.forget()
	over()
	s.load.speak()
	s.load.pass()
	if to.kubeProxy == nil {
		s.moves(s.T, s.remote())
		s.moves(s.T, s.local())
	}
}

// cleanUp removes what the former program left, as an operator does. Sluice does it by itself after another mode.
func (s *story) cleanUp(from, to program) {
	s.Helper()
	// Connections through IPVS end with its virtual servers, which wait for that no longer than the limit. Streams move then.
	s.load.flowsLost = s.load.flowsLost || from.isIPVS()
	command := []string{sluiceBinary, "cleanup", "--drain", drainLimit}
	if from.kubeProxy != nil {
		command = append(command, "--kube-proxy")
	}
	switch {
	case from.kubeProxy == nil && to.kubeProxy == nil:
		if from.isIPVS() {
			s.load.renew()
		}
	case !from.isIPVS():
		s.runs(command...)
	default:
		s.drain(command, from)
	}
}

// drain runs a command that lets connections end, and meanwhile does so, once new ones do not depend on what goes.
func (s *story) drain(command []string, from program) {
	s.Helper()
	done := make(chan error, 1)
	go func() { done <- s.try(command...) }()
	if from.kubeProxy != nil {
		s.awaitOwnSource()
	} else {
		s.awaitLeft()
	}
	s.load.renew()
	if err := <-done; err != nil {
		s.Fatal(err)
	}
}

// awaitLeft waits until Sluice's mode ipvs leaves new connections to others.
func (s *story) awaitLeft() {
	s.Helper()
	for _, family := range []string{"ip", "ip6"} {
		eventually(s.T, "new connections are not led to IPVS", func() error {
			out, err := s.Node.Run("nft", "list", "tables", family)
			if err != nil || !strings.Contains(out, "sluice-ipvs") {
				return err
			}
			if out, err = s.Node.Run("nft", "list", "chain", family, "sluice-ipvs", "arrive"); strings.Contains(out, "vmap") {
				return errors.New(out)
			}
			return err
		})
	}
}

// awaitOwnSource waits until new connections of the node do not come from addresses of Services.
func (s *story) awaitOwnSource() {
	s.Helper()
	for _, f := range proxy.Families {
		vip := clusterIP(s.web, f).Addr().String()
		eventually(s.T, "connections of the node come from its own address", func() error {
			out, err := s.Node.Run("ip", "route", "get", vip)
			if err == nil && strings.Contains(out, " src "+vip+" ") {
				err = errors.New(out)
			}
			return err
		})
	}
}

// note says when something happened.
func (s *story) note(format string, args ...any) {
	s.Helper()
	s.Logf("%6v: "+format, append([]any{time.Since(s.load.since).Round(time.Second)}, args...)...)
}

// switchingWorkers make more than 500 new connections a second. On an emulated machine there are fewer of them, and each makes fewer.
var switchingWorkers = max(1, 3/int(lab.Patient(1)))

// drainLimit is short: streams of datagrams never end by themselves.
var drainLimit = lab.Patient(20 * time.Second).String()

// awaitNothingOf waits until nothing of a program is left, now that another one serves. Between two with IPVS, virtual servers are
// taken over.
func (s *story) awaitNothingOf(from, to program) {
	s.Helper()
	eventually(s.T, "nothing of the former program is left", func() error {
		var left string
		var err error
		if from.kubeProxy != nil {
			left, err = from.kubeProxy.left(s)
		} else {
			former := *s.world
			former.mode = *from.mode
			left, err = kernels[from.mode.Mode].rules(&former)
		}
		if err != nil {
			return err
		}
		for line := range strings.Lines(left) {
			taken := from.isIPVS() && to.isIPVS() && strings.HasPrefix(line, virtualServers)
			if !taken {
				return errors.New(left)
			}
		}
		return nil
	})
}

// runs runs a program on the node.
func (s *story) runs(command ...string) {
	s.Helper()
	if err := s.try(command...); err != nil {
		s.Fatal(err)
	}
}

// try runs a program on the node. Its error says what the program said.
func (s *story) try(command ...string) error {
	out, err := s.Node.Run(command[0], command[1:]...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
