package cluster

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/load"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// traffic is a load on a Service in each family, and connections that stay open.
type traffic struct {
	s     *story
	loads []*load.Load
	long  []*lab.Conn
	first []lab.Outcome // what the long connections said
}

// startTraffic makes a Service and uses it.
func (s *story) startTraffic() *traffic {
	s.Helper()
	svc := s.service("web")
	s.endpoints(svc, ready(s.local(), s.remote())...)
	tr := &traffic{s: s}
	families(func(f proxy.Family) {
		s.reaches(s.Client, clusterIP(svc, f), s.local(), s.remote())
		for range 3 {
			conn, o := s.Client.Connect(s.probe(s.Client, clusterIP(svc, f), answerLimit))
			if conn == nil {
				s.Fatalf("long connection: %v", o)
			}
			s.Cleanup(conn.Close)
			tr.long, tr.first = append(tr.long, conn), append(tr.first, o)
		}
		tr.loads = append(tr.loads, load.Start(s.Client, s.probe(s.Client, clusterIP(svc, f), answerLimit)))
	})
	return tr
}

// pass waits until the load made many more connections.
func (tr *traffic) pass() {
	tr.s.Helper()
	for _, l := range tr.loads {
		goal := l.Total() + settled
		eventually(tr.s.T, "load goes on", func() error {
			if n := l.Total(); n < goal {
				return fmt.Errorf("%d connections, want %d", n, goal)
			}
			return nil
		})
	}
}

// end checks that no connection was lost.
func (tr *traffic) end() {
	tr.s.Helper()
	for _, l := range tr.loads {
		if c := l.Stop(); len(c.Failures) > 0 {
			tr.s.Errorf("connections were lost: %v", c)
		}
	}
	for i, conn := range tr.long {
		if o := conn.Again(answerLimit); o != tr.first[i] {
			tr.s.Errorf("long connection: %v, was %v", o, tr.first[i])
		}
	}
}

func restartLosesNothing(s *story) {
	tr := s.startTraffic()
	s.stop(s.T)
	tr.pass()
	s.start(s.T)
	tr.pass()
	tr.end()
}

func crashLosesNothing(s *story) {
	tr := s.startTraffic()
	s.sluice.Kill()
	tr.pass()
	s.start(s.T)
	tr.pass()
	tr.end()
}

// connectionsOutliveTheirEndpoint: a pod that is told to stop goes on with the connections that it has, whatever becomes
// of Sluice and of the Service meanwhile.
func connectionsOutliveTheirEndpoint(s *story) {
	svc := s.service("web")
	s.endpoints(svc, ready(s.local())...)
	open := map[*lab.Conn]lab.Outcome{}
	hangUp := sync.OnceFunc(func() {
		for conn := range open {
			conn.Close()
		}
	})
	s.Cleanup(hangUp)
	families(func(f proxy.Family) {
		for _, from := range s.everyone() {
			s.reaches(from, clusterIP(svc, f), s.local())
			conn, o := from.Connect(s.probe(from, clusterIP(svc, f), answerLimit))
			if conn == nil {
				s.Fatalf("connection of %s: %v", from.Name, o)
			}
			open[conn] = o
		}
	})
	stay := func(when string) {
		s.Helper()
		for conn, was := range open {
			if o := conn.Again(answerLimit); o != was {
				s.Errorf("%s: %v, was %v", when, o, was)
			}
		}
	}
	moves := func(to ...*lab.Host) {
		s.Helper()
		s.endpoints(svc, ready(to...)...)
		families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), to...) })
	}

	moves(s.remote())
	stay("without the endpoint")
	s.sluice.Kill()
	s.start(s.T)
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.remote()) })
	stay("after a crash")
	moves(s.local(), s.remote())
	stay("with the endpoint again")
	moves(s.remote())
	s.delete("web")
	families(func(f proxy.Family) { s.unserved(s.Client, clusterIP(svc, f)) })
	stay("without the Service")
	hangUp()
	families(func(f proxy.Family) { s.unmentioned(f, s.namespace+"/web") })
}

// restartCatchesUp: what happened while Sluice was away holds once it says that it is healthy.
func restartCatchesUp(s *story) {
	gone, changed := s.service("gone"), s.service("changed")
	s.endpoints(gone, ready(s.local())...)
	s.endpoints(changed, ready(s.local())...)
	families(func(f proxy.Family) {
		s.reaches(s.Client, clusterIP(gone, f), s.local())
		s.reaches(s.Client, clusterIP(changed, f), s.local())
	})
	s.stop(s.T)
	s.delete("gone")
	s.endpoints(changed, ready(s.remote())...)
	added := s.service("added")
	s.endpoints(added, ready(s.local())...)
	s.start(s.T)
	families(func(f proxy.Family) {
		for _, want := range []struct {
			to      target
			backend *lab.Host
		}{{clusterIP(changed, f), s.remote()}, {clusterIP(added, f), s.local()}} {
			if err := s.checkReaches(s.Client, want.to, []*lab.Host{want.backend}); err != nil {
				s.Errorf("%v: %v", want.to, err)
			}
		}
		if o := s.Client.Probe(s.probe(s.Client, clusterIP(gone, f), silenceLimit)); s.byPod(o) {
			s.Errorf("deleted Service: %v", o)
		}
	})
}

// lostAPIServerKeepsTheRules: a node lives on with what it knows, and catches up later.
func lostAPIServerKeepsTheRules(s *story) {
	tr := s.startTraffic()
	svc := s.service("other")
	s.endpoints(svc, ready(s.local())...)
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.local()) })

	s.plane.StopAPIServer()
	tr.pass()
	if err := s.wantStatus(healthzURL, 200); err != nil {
		s.Error(err)
	}
	if err := s.plane.StartAPIServer(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.endpoints(svc, ready(s.remote())...)
	families(func(f proxy.Family) { s.reaches(s.Client, clusterIP(svc, f), s.remote()) })
	tr.end()
}

// startWaitsForTheAPIServer: after a power cut the node is up first. The rules of the process before
// stay until the new one knows better.
func startWaitsForTheAPIServer(s *story) {
	tr := s.startTraffic()
	s.stop(s.T)
	s.plane.StopAPIServer()
	s.launch(s.T)
	tr.pass()
	select {
	case <-s.sluice.Done():
		s.Fatalf("sluice did not wait: %v", s.sluice.Err())
	default:
	}
	if s.wantStatus(healthzURL, 200) == nil {
		s.Error("healthz is 200 although nothing is known of the cluster")
	}
	if err := s.plane.StartAPIServer(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.awaitHealthy(s.T)
	tr.pass()
	tr.end()
}

// flushedRulesComeBack: somebody runs a firewall script.
func flushedRulesComeBack(s *story) {
	svc := s.service("web")
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) {
		s.reaches(s.Client, clusterIP(svc, f), s.local(), s.remote())
		for _, command := range s.kernel.breaks(s.world, f) {
			if _, err := s.run(command); err != nil {
				s.Fatal(err)
			}
			s.reaches(s.Client, clusterIP(svc, f), s.local(), s.remote())
		}
		if s.kernel.table != "" {
			return
		}
		// The script flushed what others had in the same tables, too.
		for _, rule := range foreignNAT {
			if _, err := s.run(s.tool(f, "") + " " + rule); err != nil {
				s.Fatal(err)
			}
		}
	})
}

// cleanupLeavesNothing is the last story but for Sluice's return.
func cleanupLeavesNothing(s *story) {
	svc := s.service("web", loadBalancer)
	s.endpoints(svc, ready(s.local(), s.remote())...)
	families(func(f proxy.Family) { s.reaches(s.Client, nodePort(svc, f), s.local(), s.remote()) })
	s.stop(s.T)
	for range 2 { // the second time there is nothing to do
		out, err := s.Node.Run(sluiceBinary, "cleanup")
		if err != nil {
			s.Fatal(err)
		}
		if err := s.wantUntouched(s.T); err != nil {
			s.Fatalf("after cleanup, which said:\n%s\n%v", out, err)
		}
	}
	s.start(s.T)
	families(func(f proxy.Family) { s.reaches(s.Client, nodePort(svc, f), s.local(), s.remote()) })
}

func TestMistakesOnTheCommandLineAreExplained(t *testing.T) {
	tests := []struct {
		args []string
		want string // in what is said
	}{
		{[]string{"--no-such-flag"}, "no-such-flag"},
		{[]string{"--mode", "telepathy"}, "iptables"},
		{[]string{"--cluster-cidr", "10.1.0.0"}, "cluster-cidr"},
		{[]string{"--nodeport-addresses", "192.168.50.1"}, "nodeport-addresses"},
		{[]string{"--kubeconfig", "/does/not/exist"}, "/does/not/exist"},
		{[]string{"--manifest-dir", "/does/not/exist"}, "/does/not/exist"},
		{[]string{"--iptables-backend", "abacus"}, "iptables-backend"},
	}
	for _, test := range tests {
		t.Run(test.want, func(t *testing.T) {
			l := lab.Start(t, lab.Config{Pods: 1})
			var out bytes.Buffer
			err := l.Node.Do(func() error {
				cmd := exec.Command(sluiceBinary, test.args...)
				cmd.Stdout, cmd.Stderr = &out, &out
				return cmd.Run()
			})
			if err == nil {
				t.Errorf("sluice %q succeeded", test.args)
			}
			if !strings.Contains(out.String(), test.want) {
				t.Errorf("sluice %q does not mention %q:\n%s", test.args, test.want, out.String())
			}
			if lines := strings.Count(out.String(), "\n"); lines > 20 {
				t.Errorf("sluice %q explains itself in %d lines:\n%s", test.args, lines, out.String())
			}
		})
	}
}
