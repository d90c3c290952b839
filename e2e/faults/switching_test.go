package faults

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/e2e/suite"
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
			s := &story{T: t, world: w, load: w.startTrafficOf(t, switchingWorkers)}
			for i, from := range c.stops[:len(c.stops)-1] {
				to := c.stops[i+1]
				before := s.load.lost()
				s.change(programNamed(t, from), programNamed(t, to))
				if n := s.load.lost() - before; n > 0 {
					t.Errorf("%s → %s: %d connections were lost", from, to, n)
				}
				t.Logf("%s → %s at %v", from, to, time.Since(s.load.since).Round(time.Second))
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
	if to.kubeProxy != nil {
		s.launch(s.T, to.kubeProxy.command(s)...)
		s.awaitKubeProxy(to.kubeProxy)
	} else {
		s.mode, s.kernel = *to.mode, kernels[to.mode.Mode]
		s.start(s.T, "--ipvs-drain-limit", drainLimit)
	}
	s.load.pass()
	s.load.speak() // those of the former program go on
	if from.isIPVS() {
		// Its connections end with its virtual servers, which wait for that no longer than the limit. Streams move then.
		s.load.renew()
		s.load.flowsLost = true
	}
	switch {
	case from.kubeProxy != nil:
		s.runs(sluiceBinary, "cleanup", "--kube-proxy", "--drain", drainLimit)
	case to.kubeProxy != nil:
		s.runs(sluiceBinary, "cleanup", "--drain", drainLimit)
	}
	s.awaitNothingOf(from)
	s.load.forget()
	over()
	s.load.speak()
	s.load.pass()
	if to.kubeProxy == nil {
		s.moves(s.T, s.remote())
		s.moves(s.T, s.local())
	}
}

// switchingWorkers make more than 500 new connections a second, if the machine can. An emulated one makes 50, however many try.
var switchingWorkers = max(1, 3/int(lab.Patient(1)))

// drainLimit is short: streams of datagrams never end by themselves.
const drainLimit = "30s"

// awaitNothingOf waits until nothing of a program is left.
func (s *story) awaitNothingOf(p program) {
	s.Helper()
	eventually(s.T, "nothing of the former program is left", func() error {
		var left string
		var err error
		if p.kubeProxy != nil {
			left, err = p.kubeProxy.left(s)
		} else {
			former := *s.world
			former.mode = *p.mode
			left, err = kernels[p.mode.Mode].rules(&former)
		}
		if err == nil && left != "" {
			err = errors.New(left)
		}
		return err
	})
}

// runs runs a program on the node.
func (s *story) runs(command ...string) {
	s.Helper()
	if out, err := s.Node.Run(command[0], command[1:]...); err != nil {
		s.Fatal(fmt.Errorf("%w: %s", err, out))
	}
}
