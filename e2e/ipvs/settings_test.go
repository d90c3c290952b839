package ipvs_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// TestKernelTimeoutsAreSet sets timeouts, and leaves one.
func TestKernelTimeoutsAreSet(t *testing.T) {
	eachWith(t, ipvs.Config{Timeouts: kernel.Timeouts{TCP: 20 * time.Minute, UDP: 30 * time.Second}}, func(t *testing.T, s *site) {
		s.apply()
		if got := s.run("ipvsadm -L --timeout"); !strings.Contains(got, "1200 120 30") {
			t.Errorf("got %s", got)
		}
	})
}

// TestKernelCompatInterface makes the interface by which Calico knows IPVS.
func TestKernelCompatInterface(t *testing.T) {
	for name, calico := range map[string]bool{"with Calico": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s *site) {
				if calico {
					s.run("ip link add cali1234 type dummy")
				}
				s.apply()
				found := s.run("ip addr show")
				wanted := calico && s.family == proxy.IPv4 // once for both
				if got := strings.Contains(found, "kube-ipvs0"); got != wanted {
					t.Fatalf("there is an interface: %v, want %v:\n%s", got, wanted, found)
				}
				if !wanted {
					return
				}
				if found := s.run("ip addr show dev kube-ipvs0"); strings.Contains(found, "inet") || !strings.Contains(found, "UP") {
					t.Errorf("it has an address, or is not up:\n%s", found)
				}
				s.must(s.Node.Do(func() error { return s.mode.Cleanup(t.Context()) }))
				if found := s.run("ip link"); strings.Contains(found, "kube-ipvs0") {
					t.Errorf("it is left:\n%s", found)
				}
			})
		})
	}
}

// TestKernelSchedulers serves with each scheduler: one of the configuration, the others of Services.
func TestKernelSchedulers(t *testing.T) {
	eachWith(t, ipvs.Config{Scheduler: "mh"}, func(t *testing.T, s *site) {
		all := []*proxy.ServicePort{s.web(proxy.TCP, s.pods(s.Pods...))}
		for i, scheduler := range []string{"", "rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "dh", "mh", "lblc", "lblcr", "fo", "ovf"} {
			mode := ipvs.NewMode(ipvs.Config{Scheduler: scheduler})
			s.must(s.Node.Do(func() error { return mode.Supported(t.Context(), s.family) }))
			web := s.web(proxy.TCP, s.pods(s.Pods...))
			web.Name.Name, web.Scheduler = "web-"+scheduler, scheduler
			web.Frontends[0].Addr = s.in(vip, uint16(1000+i))
			all = append(all, web)
		}
		s.serve(all...)
		for _, web := range all {
			to, want := web.Frontends[0].Addr, web.Scheduler
			if want == "" {
				want = "mh"
			}
			s.reach(s.Client, to, proxy.TCP, s.Pods...)
			if line := "-A -t " + to.String() + " -s " + want; !strings.Contains(s.servers(), line) {
				t.Errorf("there is no %q:\n%s", line, s.servers())
			}
		}
	})
}

// TestKernelConsistentHashing has clients keep their backends when another comes, and only those of a backend move that goes.
func TestKernelConsistentHashing(t *testing.T) {
	eachWith(t, ipvs.Config{Scheduler: "mh"}, func(t *testing.T, s *site) {
		const clients = 60
		client := func(i int) netip.Addr { return lab.In(s.family, netip.AddrFrom4([4]byte{192, 168, 50, byte(130 + i)})) }
		var backends []proxy.Backend
		for port := range uint16(5) { // backends that only their ports tell apart
			s.must(s.Pods[0].Serve(proxy.TCP, 9000+port))
			backends = append(backends, proxy.Backend{Addr: netip.AddrPortFrom(s.Pods[0].Addr(s.family), 9000+port), Local: true})
		}
		for i := range clients {
			line := []string{"address", "add", netip.PrefixFrom(client(i), client(i).BitLen()).String(), "dev", "eth0"}
			if s.family == proxy.IPv6 {
				line = append(line, "nodad")
			}
			_, err := s.Client.Run("ip", line...)
			s.must(err)
		}
		look := func(backends []proxy.Backend) (chosen [clients]netip.AddrPort) {
			s.serve(s.web(proxy.TCP, backends))
			for i := range chosen {
				from := netip.AddrPortFrom(client(i), 0)
				o := s.Client.Probe(lab.Probe{To: s.in(vip, 80), From: from, Protocol: proxy.TCP, Timeout: patience})
				if o.Result != lab.Answered {
					t.Fatalf("from %v: %v", from, o)
				}
				chosen[i] = o.Backend
			}
			return chosen
		}
		before := look(backends)
		if again := look(backends); again != before {
			t.Errorf("clients chose %v, and then %v", before, again)
		}
		gone := backends[2].Addr
		after := look(slices.Delete(slices.Clone(backends), 2, 3))
		moved := 0
		for i := range before {
			if before[i] != after[i] && before[i] != gone {
				moved++
			}
		}
		if moved > clients/6 {
			t.Errorf("%d of %d clients left a backend that is still there", moved, clients)
		}
	})
}

// TestKernelSchedulerThatIsNotThere has a start fail, and a Service be set aside, with the name of the module.
func TestKernelSchedulerThatIsNotThere(t *testing.T) {
	eachWith(t, ipvs.Config{Scheduler: "nosuch"}, func(t *testing.T, s *site) {
		err := s.Node.Do(func() error { return s.mode.Supported(t.Context(), s.family) })
		if err == nil || !strings.Contains(err.Error(), "ip_vs_nosuch") {
			t.Errorf("the mode is supported: %v; want an error that names the module", err)
		}
		s.mode = ipvs.NewMode(ipvs.Config{})
		s.restart()
		bad := s.web(proxy.TCP, s.pods(s.Pods...))
		bad.Name.Name, bad.Scheduler = "bad", "nosuch"
		bad.Frontends[0].Addr = s.in(external, 80)
		good := s.web(proxy.TCP, s.pods(s.Pods...))
		all := map[proxy.ServicePortName]*proxy.ServicePort{bad.Name: bad, good.Name: good}
		s.must(s.Node.Do(func() error {
			report, err := s.dataplane.Apply(t.Context(), proxy.NewSnapshot(s.node, all))
			if len(report.SetAside) != 1 || report.SetAside[0].Name != bad.Name || !strings.Contains(report.SetAside[0].Err.Error(), "ip_vs_nosuch") {
				t.Errorf("set aside is %v", report.SetAside)
			}
			return err
		}))
		s.reach(s.Client, s.in(vip, 80), proxy.TCP, s.Pods...)
	})
}

// TestKernelParameters looks at what this kernel is told, and that what is right is left alone.
func TestKernelParameters(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		const folder = "/proc/sys/net/ipv4/vs/"
		read := func(name string) string { return strings.TrimSpace(s.run("cat " + folder + name)) }
		reuse := read("conn_reuse_mode")
		s.apply()
		for name, want := range map[string]string{
			"conntrack": "1", "expire_nodest_conn": "1", "expire_quiescent_template": "1", "run_estimation": "0",
			"conn_reuse_mode": reuse, // since Linux 5.9 it does what it should
		} {
			if got := read(name); got != want {
				t.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		s.must(s.Node.Do(func() error { return s.mode.Cleanup(t.Context()) }))
		for name, want := range map[string]string{"conntrack": "0", "expire_nodest_conn": "0", "run_estimation": "1"} {
			if got := read(name); got != want {
				t.Errorf("after a clean-up %s is %s, want %s", name, got, want)
			}
		}
	})
}
