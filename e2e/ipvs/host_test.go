package ipvs_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// TestKernelHostIsNotReachedThroughVIPs looks for processes of the node at the address of a Service, while its virtual
// servers are there and while somebody has removed them.
func TestKernelHostIsNotReachedThroughVIPs(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for _, port := range []uint16{22, 80, 9999, 30080} {
			s.must(s.Node.Serve(proxy.TCP, port))
			s.must(s.Node.Serve(proxy.UDP, port))
		}
		before := s.run("ip addr")
		s.serve(s.web(proxy.TCP, s.pods(s.Pods...), s.nodePort()))
		if after := s.run("ip addr"); after != before {
			t.Errorf("addresses were\n%s\nand are\n%s", before, after)
		}
		nodePort := netip.AddrPortFrom(s.Node.Addr(s.family), 30080)
		for _, from := range []*lab.Host{s.Client, s.Pods[0], s.Node} {
			s.reach(from, s.in(vip, 80), proxy.TCP, s.Pods...)
			s.reach(from, nodePort, proxy.TCP, s.Pods...)
			for _, port := range []uint16{22, 9999, 30080} {
				s.expect(from, s.in(vip, port), proxy.TCP, lab.Refused)
				s.expect(from, s.in(vip, port), proxy.UDP, lab.Refused)
			}
		}
		s.run("ipvsadm -C")
		for _, from := range []*lab.Host{s.Client, s.Pods[0], s.Node} {
			s.expect(from, s.in(vip, 80), proxy.TCP, lab.Silence)
			s.expect(from, nodePort, proxy.TCP, lab.Silence)
			s.expect(from, s.in(vip, 9999), proxy.TCP, lab.Refused)
		}
	})
}

// TestKernelNodeSpeaksAsItself looks at the address that backends see.
func TestKernelNodeSpeaksAsItself(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.serve(s.web(proxy.TCP, s.pods(s.Pods[0])))
		if o := s.reach(s.Node, s.in(vip, 80), proxy.TCP, s.Pods[0]); o.Source.Addr() == lab.In(s.family, vip) {
			t.Errorf("the node's connection came from %v", o.Source)
		}
	})
}

// TestKernelNoNeighbourIsAnswered asks on the client's link for the address of a Service.
func TestKernelNoNeighbourIsAnswered(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		onLink := netip.MustParseAddr("192.168.50.77")
		frontend := proxy.Frontend{Kind: proxy.ExternalIP, Addr: s.in(onLink, 80), Routes: cluster}
		s.serve(s.web(proxy.TCP, s.pods(s.Pods[0]), frontend))
		if o := s.Client.Probe(lab.Probe{To: s.in(onLink, 80), Protocol: proxy.TCP, Timeout: patience}); o.Result == lab.Answered {
			t.Errorf("somebody answered for an address that is nobody's: %v", o)
		}
	})
}

// TestKernelReversePathIsFound has the kernel check where packets come from, with their mark.
func TestKernelReversePathIsFound(t *testing.T) {
	each(t, func(_ *testing.T, s *site) {
		s.serve(s.web(proxy.TCP, s.pods(s.Pods[0]), s.nodePort()))
		for _, valid := range []string{"0", "1"} {
			for _, filter := range []string{"0", "1", "2"} {
				s.must(s.Node.Sysctl(map[string]string{
					"net/ipv4/conf/all/src_valid_mark": valid,
					"net/ipv4/conf/all/rp_filter":      filter,
				}))
				for _, from := range []*lab.Host{s.Client, s.Pods[1], s.Node} {
					s.reach(from, s.in(vip, 80), proxy.TCP, s.Pods[0])
				}
			}
		}
	})
}

// TestKernelNodeWithoutRoute takes the default route away: Services are reached all the same, wherever their addresses are,
// and what is none stays without a route.
func TestKernelNodeWithoutRoute(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.ip("route del default")
		outer := netip.MustParseAddr("203.0.113.20")
		web := s.web(proxy.TCP, s.pods(s.Pods[0]),
			proxy.Frontend{Kind: proxy.LoadBalancerIP, Addr: s.in(external, 80), Routes: cluster},
			proxy.Frontend{Kind: proxy.ExternalIP, Addr: s.in(outer, 80), Routes: cluster})
		s.serve(web)
		reached := func() {
			t.Helper()
			for _, addr := range []netip.Addr{vip, external, outer} {
				s.reach(s.Node, s.in(addr, 80), proxy.TCP, s.Pods[0])
				s.reach(s.Pods[1], s.in(addr, 80), proxy.TCP, s.Pods[0])
			}
		}
		reached()
		if o := s.reach(s.Node, s.in(external, 80), proxy.TCP, s.Pods[0]); o.Source.Addr() == lab.In(s.family, external) {
			t.Errorf("the node's connection came from %v", o.Source)
		}
		for _, from := range []*lab.Host{s.Node, s.Pods[1]} {
			for _, addr := range []netip.Addr{vip, external, outer} {
				s.refused(from, s.in(addr, 81), proxy.TCP)
			}
			s.expect(from, s.in(netip.MustParseAddr("198.51.100.99"), 80), proxy.TCP, lab.Unreachable)
		}
		s.restart()
		if n := s.apply(); n != 0 {
			t.Errorf("after a restart: %d writes", n)
		}
		reached()
		empty := s.web(proxy.TCP, nil, web.Frontends[1:]...)
		for i := range empty.Frontends {
			empty.Frontends[i].Routes = proxy.Every(proxy.Route{Verdict: proxy.Reject})
		}
		s.serve(empty)
		for _, addr := range []netip.Addr{vip, external, outer} {
			s.refused(s.Node, s.in(addr, 80), proxy.TCP)
			s.refused(s.Pods[1], s.in(addr, 80), proxy.TCP)
		}
		s.forget(web)
		for _, addr := range []netip.Addr{external, outer} {
			s.expect(s.Node, s.in(addr, 80), proxy.TCP, lab.Unreachable)
			if left := s.ip("route show table 21339"); strings.Contains(left, lab.In(s.family, addr).String()) {
				t.Errorf("a route is left:\n%s", left)
			}
		}
	})
}

// TestKernelFirewallLetsLedPacketsIn has a policy of INPUT that drops, without and with the rule that the documentation names.
func TestKernelFirewallLetsLedPacketsIn(t *testing.T) {
	each(t, func(_ *testing.T, s *site) {
		iptables := "iptables"
		if s.family == proxy.IPv6 {
			iptables = "ip6tables"
			s.run("ip6tables -A INPUT -p ipv6-icmp -j ACCEPT") // without neighbour discovery nothing works
		}
		s.run(iptables + " -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
		s.run(iptables + " -P INPUT DROP")
		s.serve(s.web(proxy.TCP, s.pods(s.Pods[0]), s.nodePort()))
		nodePort := netip.AddrPortFrom(s.Node.Addr(s.family), 30080)
		for _, from := range []*lab.Host{s.Client, s.Pods[1]} {
			s.expect(from, s.in(vip, 80), proxy.TCP, lab.Silence)
		}
		s.run(iptables + " -I INPUT -m mark --mark 0x2000/0x2000 -j ACCEPT")
		for _, from := range []*lab.Host{s.Client, s.Pods[0], s.Pods[1], s.Node} {
			s.reach(from, s.in(vip, 80), proxy.TCP, s.Pods[0])
			s.reach(from, nodePort, proxy.TCP, s.Pods[0])
		}
	})
}

// TestKernelMarksOfOthersSurvive marks packets before IPVS and looks at them when they leave, also where a virtual server
// is found by a mark.
func TestKernelMarksOfOthersSurvive(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		routes := cluster
		routes[proxy.FromOutside].Pool = proxy.LocalPool
		web := s.web(proxy.TCP, s.pods(s.Pods...), proxy.Frontend{Kind: proxy.LoadBalancerIP, Addr: s.in(external, 80), Routes: routes})
		web.Local = s.pods(s.Pods[0])
		s.serve(web)
		for _, rule := range []string{
			"add table inet look",
			"add chain inet look in { type filter hook prerouting priority -150; }",
			"add rule inet look in tcp dport 80 meta mark set 0x80a00010",
			"add chain inet look out { type filter hook postrouting priority 300; }",
			"add rule inet look out tcp dport 8080 meta mark 0x80a00010 counter",
			"add rule inet look out tcp dport 8080 meta mark != 0x80a00010 counter",
		} {
			s.run("nft " + rule)
		}
		s.reach(s.Client, s.in(external, 80), proxy.TCP, s.Pods[0])
		s.reach(s.Pods[1], s.in(vip, 80), proxy.TCP, s.Pods...)
		seen := s.run("nft list chain inet look out")
		if strings.Count(seen, "packets 0 bytes 0") != 1 || !strings.Contains(seen, "!= 0x80a00010 counter packets 0 bytes 0") {
			t.Errorf("packets left with another mark than 0x80a00010:\n%s", seen)
		}
	})
}

// TestKernelForeignServersStay has virtual servers of others, one among the addresses of Services, through everything.
func TestKernelForeignServersStay(t *testing.T) {
	excluded := netip.MustParseAddr("203.0.113.7")
	prefixes := []netip.Prefix{netip.PrefixFrom(lab.In(proxy.IPv4, excluded), 32), netip.PrefixFrom(lab.In(proxy.IPv6, excluded), 128)}
	eachWith(t, ipvs.Config{Exclude: prefixes}, func(t *testing.T, s *site) {
		in, out := s.text(netip.MustParseAddr("10.96.0.77"), 80), s.text(netip.MustParseAddr("203.0.113.99"), 80)
		mark := "-f 1234"
		if s.family == proxy.IPv6 {
			mark += " -6"
		}
		for _, id := range []string{"-t " + in, "-u " + out, mark} {
			s.run("ipvsadm -A " + id + " -s wlc")
			s.run(fmt.Sprintf("ipvsadm -a %s -r %v -m -w 7", id, netip.AddrPortFrom(s.Pods[0].Addr(s.family), 1)))
		}
		foreign := s.servers()
		web := s.web(proxy.TCP, s.pods(s.Pods...), s.nodePort())
		s.serve(web)
		s.restart()
		s.apply()
		s.forget(web)
		s.must(s.Node.Do(func() error { return s.mode.Cleanup(t.Context()) }))
		if now := s.servers(); now != foreign {
			t.Errorf("virtual servers were\n%s\nand are\n%s", foreign, now)
		}
		left := s.run("nft list ruleset") + s.ip("rule") + s.ip("route show table all")
		for _, ours := range []string{"sluice", "0x2000", "2133"} {
			if strings.Contains(left, ours) {
				t.Errorf("%q is left:\n%s", ours, left)
			}
		}
	})
}

// TestKernelListIsWhole lists virtual servers while another network namespace makes and removes some: the kernel has one table for
// all of them, and tells by a number how far a list has come.
func TestKernelListIsWhole(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		commands := func(op kernel.Op, n int) []kernel.Command {
			all := make([]kernel.Command, n)
			for i := range all {
				id := kernel.ID{Addr: s.in(netip.MustParseAddr("10.96.0.10"), uint16(1000+i)), Protocol: proxy.TCP}
				if i%2 == 1 {
					id = kernel.ID{Mark: uint32(1000 + i)}
				}
				all[i] = kernel.Command{Op: op, Server: kernel.Server{ID: id, Scheduler: "rr"}}
			}
			return all
		}
		const count = 100
		servers := kernel.NewIPVS(s.family)
		s.must(s.Node.Do(func() error {
			refused, err := servers.Run(t.Context(), commands(kernel.AddServer, count))
			if err == nil && len(refused) > 0 {
				err = refused[0]
			}
			return err
		}))
		done := make(chan struct{})
		var others sync.WaitGroup
		others.Go(func() {
			err := s.Pods[0].Do(func() error {
				for {
					for _, op := range []kernel.Op{kernel.AddServer, kernel.DeleteServer} {
						if _, err := servers.Run(context.Background(), commands(op, 10)); err != nil {
							return err
						}
					}
					select {
					case <-done:
						return nil
					default:
					}
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
		twice, missing := 0, 0
		for range 100 {
			s.must(s.Node.Do(func() error {
				all, err := servers.List(t.Context())
				seen := map[kernel.ID]bool{}
				for _, x := range all {
					seen[x.ID] = true
				}
				twice += len(all) - len(seen)
				missing += count - len(seen)
				return err
			}))
		}
		close(done)
		others.Wait()
		if twice > 0 || missing > 0 {
			t.Errorf("in 100 lists of %d virtual servers %d were there twice, and %d missing", count, twice, missing)
		}
	})
}

// TestKernelCleanupNeedsNoTable cleans up where the table is that of another version, and where it is gone: of Sluice's virtual servers
// those known by a mark are recognised even then. Those of others stay.
func TestKernelCleanupNeedsNoTable(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		somebodys := s.text(netip.MustParseAddr("203.0.113.99"), 80)
		s.run("ipvsadm -A -t " + somebodys + " -s wlc")
		foreign := s.servers()
		routes := cluster
		routes[proxy.FromOutside].Pool = proxy.LocalPool
		web := s.web(proxy.TCP, s.pods(s.Pods...), proxy.Frontend{Kind: proxy.LoadBalancerIP, Addr: s.in(external, 80), Routes: routes})
		web.Local = s.pods(s.Pods[0])
		table := "ip sluice-ipvs"
		if s.family == proxy.IPv6 {
			table = "ip6 sluice-ipvs"
		}
		left := func(damage string) string {
			t.Helper()
			s.restart()
			s.serve(web)
			s.run(damage)
			s.must(s.Node.Do(func() error { return s.mode.Cleanup(t.Context()) }))
			if rules := s.run("nft list ruleset") + s.ip("rule"); strings.Contains(rules, "sluice") || strings.Contains(rules, "0x2000") {
				t.Errorf("%s, and then a clean-up left:\n%s", damage, rules)
			}
			return s.servers()
		}
		if now := left("nft add set " + table + " strange { type ipv4_addr; }"); now != foreign {
			t.Errorf("with a table of another layout, virtual servers were\n%s\nand are\n%s", foreign, now)
		}
		if now := left("nft delete table " + table); strings.Contains(now, "-A -f ") || !strings.Contains(now, somebodys) {
			t.Errorf("without a table these virtual servers are left:\n%s", now)
		}
	})
}
