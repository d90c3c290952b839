package ipvs_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// TestKernelRestartWritesNothing starts anew where everything is as it should be.
func TestKernelRestartWritesNothing(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		routes := cluster
		routes[proxy.FromOutside].Pool = proxy.LocalPool
		web := s.web(proxy.TCP, s.pods(s.Pods...), s.nodePort(),
			proxy.Frontend{Kind: proxy.LoadBalancerIP, Addr: s.in(external, 80), Routes: routes, Allowed: s.node.ServiceCIDRs})
		web.Local = s.pods(s.Pods[0])
		web.Affinity = time.Hour
		dns := s.web(proxy.UDP, s.pods(s.Pods...))
		if n := s.serve(web, dns); n == 0 {
			t.Fatal("the first Apply wrote nothing")
		}
		before := s.servers()
		s.restart()
		if n := s.apply(); n != 0 {
			t.Errorf("after a restart: %d writes", n)
		}
		if after := s.servers(); after != before {
			t.Errorf("virtual servers were\n%s\nand are\n%s", before, after)
		}
	})
}

// open opens a connection that stays.
func (s *site) open(from *lab.Host) *lab.Conn {
	s.t.Helper()
	c, o := from.Connect(lab.Probe{To: s.in(vip, 80), Protocol: proxy.TCP, Timeout: patience})
	if c == nil {
		s.t.Fatalf("open a connection: %v", o)
	}
	return c
}

// again wants an open connection to work.
func (s *site) again(c *lab.Conn) {
	s.t.Helper()
	if o := c.Again(patience); o.Result != lab.Answered {
		s.t.Errorf("an open connection: %v", o)
	}
}

// has tells whether ipvsadm lists a backend, with a weight.
func (s *site) has(h *lab.Host, weight string) bool {
	s.t.Helper()
	return strings.Contains(s.servers(), "-r "+s.pods(h)[0].Addr.String()+" -m -w "+weight)
}

// TestKernelBackendDrains removes a backend that has a connection, also across a restart, and lets it come back.
func TestKernelBackendDrains(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		a, b := s.Pods[0], s.Pods[1]
		s.serve(s.web(proxy.TCP, s.pods(a)))
		conn := s.open(s.Client)
		s.serve(s.web(proxy.TCP, s.pods(b)))
		if !s.has(a, "0") {
			t.Errorf("the backend that is gone has no weight 0:\n%s", s.servers())
		}
		s.again(conn)
		s.reach(s.Client, s.in(vip, 80), proxy.TCP, b)

		s.restart() // as after SIGKILL
		s.apply()
		s.again(conn)
		s.reach(s.Client, s.in(vip, 80), proxy.TCP, b)

		s.serve(s.web(proxy.TCP, s.pods(a, b)))
		if !s.has(a, "1") {
			t.Errorf("the backend that is back has no weight:\n%s", s.servers())
		}
		s.again(conn)

		s.serve(s.web(proxy.TCP, s.pods(b)))
		conn.Close()
		s.eventually("a drained backend goes", func() bool { s.apply(); return !s.has(a, "0") })
	})
}

// TestKernelDrainHasAnEnd keeps a connection longer than it may be kept.
func TestKernelDrainHasAnEnd(t *testing.T) {
	eachWith(t, ipvs.Config{DrainLimit: time.Second}, func(_ *testing.T, s *site) {
		a, b := s.Pods[0], s.Pods[1]
		s.serve(s.web(proxy.TCP, s.pods(a)))
		defer s.open(s.Client).Close()
		s.serve(s.web(proxy.TCP, s.pods(b)))
		s.eventually("the limit of a drain", func() bool { s.apply(); return !s.has(a, "0") })
	})
}

// TestKernelDeletedServiceDrains deletes a Service that has a connection.
func TestKernelDeletedServiceDrains(t *testing.T) {
	each(t, func(_ *testing.T, s *site) {
		web := s.web(proxy.TCP, s.pods(s.Pods[0]))
		s.serve(web)
		conn := s.open(s.Client)
		s.forget(web)
		s.again(conn)
		s.expect(s.Client, s.in(vip, 80), proxy.TCP, lab.Silence)
		conn.Close()
		s.eventually("a drained virtual server goes", func() bool { s.apply(); return !strings.Contains(s.servers(), s.text(vip, 80)) })
	})
}

// TestKernelUDPBackendGoesAtOnce removes a backend of UDP.
func TestKernelUDPBackendGoesAtOnce(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		a, b := s.Pods[0], s.Pods[1]
		s.serve(s.web(proxy.UDP, s.pods(a)))
		s.reach(s.Client, s.in(vip, 80), proxy.UDP, a)
		s.serve(s.web(proxy.UDP, s.pods(b)))
		if s.has(a, "0") || s.has(a, "1") {
			t.Errorf("the backend is still there:\n%s", s.servers())
		}
		s.reach(s.Client, s.in(vip, 80), proxy.UDP, b)
	})
}

// TestKernelAffinityLeavesDrainingBackend has a client stick to a backend that goes.
func TestKernelAffinityLeavesDrainingBackend(t *testing.T) {
	each(t, func(_ *testing.T, s *site) {
		a, b := s.Pods[0], s.Pods[1]
		sticky := func(pods ...*lab.Host) *proxy.ServicePort {
			web := s.web(proxy.TCP, s.pods(pods...))
			web.Affinity = time.Hour
			return web
		}
		s.serve(sticky(a))
		conn := s.open(s.Client)
		s.serve(sticky(a, b))
		for range 5 {
			s.reach(s.Client, s.in(vip, 80), proxy.TCP, a)
		}
		s.serve(sticky(b))
		s.reach(s.Client, s.in(vip, 80), proxy.TCP, b)
		s.again(conn)
		conn.Close()
		s.eventually("a drained backend goes, whoever stuck to it", func() bool { s.apply(); return !s.has(a, "0") })
		s.reach(s.Client, s.in(vip, 80), proxy.TCP, b)
	})
}

// differences are what an inspection finds, each as "kind object".
func (s *site) differences() (found []string) {
	s.t.Helper()
	s.must(s.Node.Do(func() error {
		list, err := s.dataplane.(proxy.Inspector).Inspect(s.t.Context(), proxy.NewSnapshot(s.node, s.ports))
		for _, x := range list {
			found = append(found, x.Kind.String()+" "+x.Object)
		}
		return err
	}))
	return found
}

// TestKernelDamageIsNoticedAndRepaired lets somebody else spoil each thing that the mode needs.
func TestKernelDamageIsNoticedAndRepaired(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.serve(s.web(proxy.TCP, s.pods(s.Pods...), s.nodePort()))
		doubts := make(chan string, 100)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- s.Node.Do(func() error {
				return s.dataplane.(proxy.Watcher).Watch(ctx, func(reason string) { doubts <- reason })
			})
		}()
		defer func() {
			stop()
			if err := <-ended; err != nil {
				t.Errorf("watch: %v", err)
			}
		}()
		ip, table := "-4", "ip sluice-ipvs"
		if s.family == proxy.IPv6 {
			ip, table = "-6", "ip6 sluice-ipvs"
		}
		s.eventually("the watch begins", func() bool { // what happens before is not noticed
			for _, op := range []string{"add", "delete"} {
				s.run("nft " + op + " element " + table + " outer-ips { " + lab.In(s.family, external).String() + " }")
			}
			return len(doubts) > 0
		})
		noticed := func(damage string) {
			t.Helper()
			for late := time.After(3 * patience); ; {
				select {
				case reason := <-doubts:
					if strings.Contains(reason, "set outer-ips") {
						continue // that was the beginning
					}
					t.Logf("%s: %s", damage, reason)
					return
				case <-late:
					t.Fatalf("%s: not noticed", damage)
				}
			}
		}
		web, pod := "-t "+s.text(vip, 80), s.pods(s.Pods[0])[0].Addr.String()
		server, backend := "virtual server "+s.text(vip, 80)+"/tcp", " backend "+pod
		if found := s.differences(); len(found) > 0 {
			t.Errorf("in the beginning: %q", found)
		}
		for _, x := range []struct{ damage, named string }{
			{"ip FAMILY rule del priority 8", "missing rule of priority 8"},
			{"ip FAMILY rule del priority 7", "missing rule of priority 7"},
			{"ip FAMILY route flush table 21338", "missing route to everything of table 21338"},
			{"ip link set lo down", "missing route to "}, // which of them, the families differ in
			{"ipvsadm -C", "missing " + server},
			{"ipvsadm -D " + web, "missing " + server},
			{"ipvsadm -E " + web + " -s lc", "altered " + server},
			{"ipvsadm -E " + web + " -s rr -p 60", "altered " + server},
			{"ipvsadm -d " + web + " -r " + pod, "missing " + server + backend},
			{"ipvsadm -e " + web + " -r " + pod + " -m -w 0", "altered " + server + backend},
			{"ipvsadm -e " + web + " -r " + pod + " -m -w 9", "altered " + server + backend},
			{"ipvsadm -e " + web + " -r " + pod + " -m -w 1 -x 1", "altered " + server + backend},
			{"ipvsadm -a " + web + " -r " + s.text(external, 1) + " -m", "foreign " + server + " backend " + s.text(external, 1)},
			{"nft add table TABLE { flags dormant; }", "altered table " + ipvs.Table},
			{"nft flush ruleset", "missing table " + ipvs.Table},
		} {
			damage := strings.NewReplacer("FAMILY", ip, "TABLE", table).Replace(x.damage)
			s.run(damage)
			if strings.HasSuffix(damage, "down") {
				s.run("ip link set lo up")
			}
			noticed(damage)
			named := func(found string) bool {
				return found == x.named || strings.HasSuffix(x.named, " ") && strings.HasPrefix(found, x.named)
			}
			if found := s.differences(); !slices.ContainsFunc(found, named) {
				t.Errorf("%s: an inspection finds %q, and not %q", damage, found, x.named)
			}
			s.dataplane.Resync("doubt")
			if n := s.apply(); n == 0 {
				t.Errorf("%s: nothing was repaired", damage)
			}
			if found := s.differences(); len(found) > 0 {
				t.Errorf("%s: after the repair an inspection finds %q", damage, found)
			}
			for _, from := range []*lab.Host{s.Client, s.Pods[0], s.Node} {
				s.reach(from, s.in(vip, 80), proxy.TCP, s.Pods...)
			}
			repaired := s.dataplane
			s.restart()
			if n := s.apply(); n != 0 {
				t.Errorf("%s: after the repair %d things were not as they should be", damage, n)
			}
			s.dataplane = repaired
			for len(doubts) > 0 {
				<-doubts
			}
		}
	})
}
