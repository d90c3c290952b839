package ipvs

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest"
)

// Compare implements router.
func (n *node) Compare(want kernel.Routes) ([]proxy.Difference, error) {
	if n.routes.Equal(want) {
		return nil, nil
	}
	return []proxy.Difference{{Kind: proxy.Missing, Object: "routes"}}, nil
}

// inspected are the differences, each as "kind object".
func (n *node) inspected(d *dataplane, want *proxy.Snapshot) []string {
	n.t.Helper()
	commands := n.servers.Commands
	found := proxytest.Inspected(n.t, d, want)
	if n.servers.Commands != commands {
		n.t.Error("virtual servers were changed")
	}
	return found
}

func (n *node) idOf(ip string) kernel.ID {
	return kernel.ID{Addr: netip.AddrPortFrom(n.addr(ip), 80), Protocol: proxy.TCP}
}

func TestKernelInspectionNamesEachHarm(t *testing.T) {
	inKernels(t, func(n *node) {
		d := n.dataplane()
		want := n.snapshot(
			service{name: "web", ip: "10.96.0.10", backends: []int{1, 2}},
			service{name: "more", ip: "10.96.0.11", external: "192.0.2.11", local: true, nodePort: 30011, backends: []int{3, 4}, affinity: time.Minute},
		)
		n.apply(d, want)
		id, one := n.idOf("10.96.0.10"), n.backend(1).Addr
		server := func(f func(s *kernel.Server)) func() {
			return func() {
				s := n.servers.Servers[id]
				f(&s)
				n.servers.Servers[id] = s
			}
		}
		backend := func(l kernel.Load) func() { return func() { n.servers.Backing[id][l.Addr] = l } }
		table := map[proxy.Family]string{proxy.IPv4: "ip " + Table, proxy.IPv6: "ip6 " + Table}[n.family]
		nft := func(commands string) func() {
			return func() { n.nft(strings.ReplaceAll(commands, "$T", table)) }
		}
		vs := fmt.Sprintf("virtual server %v", id)
		vip := n.addr("10.96.0.10")
		for _, test := range []struct {
			name string
			harm func()
			want []string
		}{
			{"server deleted", func() { delete(n.servers.Servers, id); delete(n.servers.Backing, id) }, []string{"missing " + vs}},
			{"scheduler altered", server(func(s *kernel.Server) { s.Scheduler = "lc" }), []string{"altered " + vs}},
			{"flags altered", server(func(s *kernel.Server) { s.Altered = true }), []string{"altered " + vs}},
			{"backend deleted", func() { delete(n.servers.Backing[id], one) }, []string{fmt.Sprintf("missing %s backend %v", vs, one)}},
			{"backend without weight", backend(kernel.Load{Dest: kernel.Dest{Addr: one}}), []string{fmt.Sprintf("altered %s backend %v", vs, one)}},
			{"another weight", backend(kernel.Load{Dest: kernel.Dest{Addr: one, Weight: 7}}), []string{fmt.Sprintf("altered %s backend %v", vs, one)}},
			{"limit of connections", backend(kernel.Load{Dest: kernel.Dest{Addr: one, Weight: 1}, Altered: true}), []string{fmt.Sprintf("altered %s backend %v", vs, one)}},
			{"backend added", backend(kernel.Load{Dest: kernel.Dest{Addr: n.backend(9).Addr, Weight: 1}}),
				[]string{fmt.Sprintf("foreign %s backend %v", vs, n.backend(9).Addr)}},
			{"routes gone", func() { n.routes = kernel.Routes{} }, []string{"missing routes"}},
			{"rule deleted", nft("flush chain $T lead-output"), []string{"altered chain lead-output"}},
			{"chain added", nft("add chain $T other"), []string{"foreign chain other"}},
			{"element deleted", nft(fmt.Sprintf("delete element $T from-pods { %s . tcp . 80 }", vip)), []string{fmt.Sprintf("missing map from-pods { %s . tcp . 80 }", vip)}},
			{"element added", nft(fmt.Sprintf("add element $T cluster-ips { %s }", n.addr("192.0.2.7"))),
				[]string{fmt.Sprintf("foreign set cluster-ips { %s }", n.addr("192.0.2.7"))}},
			{"set deleted", nft("flush chain $T nat-postrouting; delete set $T hairpin"), []string{"altered chain nat-postrouting", "missing set hairpin"}},
			{"table deleted", nft("delete table $T"), []string{"missing table " + Table}},
		} {
			if found := n.inspected(d, want); len(found) > 0 {
				n.t.Fatalf("before %s: %q", test.name, found)
			}
			test.harm()
			if diff := cmp.Diff(test.want, n.inspected(d, want)); diff != "" {
				n.t.Errorf("%s (-want +got):\n%s", test.name, diff)
			}
			if test.name == "chain added" {
				nft("delete chain $T other")() // it does no harm, and is left alone
			}
			d.Resync(test.name)
			n.apply(d, want)
			n.settle(d, want)
		}
	})
}

// TestKernelInspectionIgnoresHistory has backends and virtual servers drain.
func TestKernelInspectionIgnoresHistory(t *testing.T) {
	inKernels(t, func(n *node) {
		d := n.dataplane()
		web := service{name: "web", ip: "10.96.0.10", external: "192.0.2.10", local: true, nodePort: 30010, backends: []int{1, 2, 3}}
		dns := service{name: "dns", protocol: proxy.UDP, ip: "10.96.0.11", backends: []int{1, 2, 3}}
		n.apply(d, n.snapshot(web, dns))
		busy := func(active uint32) {
			for id, backing := range n.servers.Backing {
				for addr, l := range backing {
					l.Active = active
					n.servers.Backing[id][addr] = l
				}
			}
		}
		quiet := func(when string, want *proxy.Snapshot) {
			n.t.Helper()
			if found := n.inspected(d, want); len(found) > 0 {
				n.t.Errorf("%s: %q", when, found)
			}
		}
		busy(3)
		web.backends, dns.backends = []int{3, 4}, []int{3, 4}
		want := n.snapshot(web, dns)
		n.apply(d, want)
		quiet("backends drain", want)
		busy(0)
		quiet("their connections have ended", want)
		busy(3)
		want = n.snapshot(dns)
		n.apply(d, want)
		if len(d.held.draining) == 0 {
			n.t.Fatal("nothing drains, so this test shows nothing")
		}
		quiet("virtual servers drain", want)
		busy(0)
		quiet("their connections have ended, too", want)
	})
}

// shown are the objects, and what is wrong with them.
func (n *node) shown(d *dataplane, want *proxy.Snapshot, name string) (objects, wrong []string) {
	n.t.Helper()
	d.see = func(context.Context) (looker, func(), error) { return n.servers, func() {}, nil }
	for _, sp := range want.All() {
		if sp.Name.Name != name {
			continue
		}
		list, err := d.Show(n.t.Context(), want, sp, sp.Frontends)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, o := range list {
			objects = append(objects, o.Name+": "+o.Holds)
			if o.Differs != nil {
				wrong = append(wrong, o.Differs.Kind.String()+" "+o.Name)
			}
		}
	}
	slices.Sort(wrong)
	return objects, wrong
}

func TestKernelShowsWhatImplementsAService(t *testing.T) {
	inKernels(t, func(n *node) {
		d := n.dataplane()
		services := append(crowd(20), service{name: "web", ip: "10.96.200.10", external: "192.0.2.10", local: true, nodePort: 32010, backends: []int{1, 2, 3}})
		n.apply(d, n.snapshot(services...))
		services[20].backends = []int{3, 4}
		id, three := n.idOf("10.96.200.10"), n.backend(3).Addr
		for addr, l := range n.servers.Backing[id] {
			l.Active = 2
			n.servers.Backing[id][addr] = l
		}
		want := n.snapshot(services...)
		n.apply(d, want)
		for _, s := range services {
			if objects, wrong := n.shown(d, want, s.name); len(objects) < 4 || len(wrong) > 0 {
				n.t.Errorf("%s: %q of %q", s.name, wrong, objects)
			}
		}
		vs := fmt.Sprintf("virtual server %v", id)
		objects, _ := n.shown(d, want, "web")
		for _, part := range []string{
			vs + ": scheduler rr, 4 backends", fmt.Sprintf("%s backend %v: weight 1", vs, three), fmt.Sprintf("%s backend %v: weight 0: it drains", vs, n.backend(1).Addr),
			fmt.Sprintf("map from-outside { %s . tcp . 80 }: goto lead", n.addr("192.0.2.10")),
		} {
			if !slices.Contains(objects, part) {
				n.t.Errorf("no %q in %q", part, objects)
			}
		}
		table := map[proxy.Family]string{proxy.IPv4: "ip " + Table, proxy.IPv6: "ip6 " + Table}[n.family]
		for _, test := range []struct {
			harm func()
			want []string
		}{
			{func() { delete(n.servers.Servers, id); delete(n.servers.Backing, id) }, []string{"missing " + vs}},
			{func() { delete(n.servers.Backing[id], three) }, []string{fmt.Sprintf("missing %s backend %v", vs, three)}},
			{func() { n.servers.Backing[id][three] = kernel.Load{Dest: kernel.Dest{Addr: three, Weight: 3}} }, []string{fmt.Sprintf("altered %s backend %v", vs, three)}},
			{func() { n.nft("flush chain " + table + " lead-output") }, []string{"altered chain lead-output"}},
			{func() {
				n.nft(fmt.Sprintf("delete element %s restricted { %s . tcp . 80 }", table, n.addr("192.0.2.10")))
			},
				[]string{fmt.Sprintf("missing set restricted { %s . tcp . 80 }", n.addr("192.0.2.10"))}},
			{func() { n.routes = kernel.Routes{} }, []string{"missing routes"}},
			{func() { n.nft("delete table " + table) }, []string{"missing table " + Table}},
		} {
			test.harm()
			if _, wrong := n.shown(d, want, "web"); !slices.Equal(wrong, test.want) {
				n.t.Errorf("got %q, want %q", wrong, test.want)
			}
			d.Resync("test")
			n.apply(d, want)
		}
	})
}
