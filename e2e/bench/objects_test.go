package main

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

func TestEndsByNameHaveEndpoints(t *testing.T) {
	for n := emptyEvery; n <= maxServices; n += emptyEvery {
		if !hasEndpoints(0) || !hasEndpoints(n-1) {
			t.Errorf("of %d services the first or the last one has no endpoints", n)
		}
	}
	if !slices.IsSorted([]string{serviceName(0), serviceName(9), serviceName(10), serviceName(maxServices - 1)}) {
		t.Error("names do not sort like numbers")
	}
}

func TestSliceServesEveryPortOfItsService(t *testing.T) {
	c := &cluster{spare: newAddresses()}
	for _, ports := range [][]corev1.ServicePort{onePort(), manyPorts(3)} {
		s := service{name: "some", ports: ports, backends: c.newBackends(2)}
		slice := s.slice()
		var want, got []string
		for _, p := range s.object().Spec.Ports {
			want = append(want, p.Name)
		}
		for _, p := range slice.Ports {
			got = append(got, *p.Name)
			if *p.Port != targetPort {
				t.Errorf("port %s of the slice is %d", *p.Name, *p.Port)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("names of ports (-want +got)\n%s", diff)
		}
		if len(slice.Endpoints) != 2 || slice.Endpoints[0].Addresses[0] == slice.Endpoints[1].Addresses[0] {
			t.Errorf("endpoints %v, want two", slice.Endpoints)
		}
	}
}

func TestAddressesSuffice(t *testing.T) {
	c := &cluster{spare: newAddresses(), load: load{endpoints: 50}}
	// That is more than the crowd has.
	c.plan(1000)
	for _, s := range c.services {
		for i, b := range s.backends {
			if !lab.CrowdCIDR.Contains(b) || b == straight {
				t.Fatalf("%v is not the crowd's to hand out", b)
			}
			if slices.Contains(s.backends[:i], b) {
				t.Fatalf("%s has %v twice", s.name, b)
			}
		}
	}
}

func TestAnAddressThatWasGivenBackRests(t *testing.T) {
	a := newAddresses()
	const returned = 100
	var given []netip.Addr
	for range returned {
		given = append(given, a.take(nil))
	}
	for _, addr := range given {
		a.give(addr)
	}
	for range returned {
		if addr := a.take(given[:1]); slices.Contains(given, addr) {
			t.Fatalf("%v is handed out again", addr)
		}
	}
}

func TestTakeLeavesOutOthers(t *testing.T) {
	a := newAddresses()
	others := []netip.Addr{a.free[0], a.free[1]}
	if got := a.take(others); slices.Contains(others, got) {
		t.Errorf("got %v of %v", got, others)
	}
	if got := a.take(nil); !slices.Contains(others, got) {
		t.Errorf("got %v, want one of those left out before: %v", got, others)
	}
}

func TestChangesReplaceOneEndpointOfEachServiceInTurn(t *testing.T) {
	c := &cluster{spare: newAddresses(), load: load{endpoints: 2}}
	for _, n := range []int{50, 200} {
		c.plan(n)
		changed := map[string]bool{}
		for range len(c.turns) {
			before := map[string][]netip.Addr{}
			for _, s := range c.services {
				before[s.name] = s.backends
			}
			ch := c.nextChange()
			had := before[ch.service.name]
			want := []netip.Addr{had[1], ch.added}
			if diff := cmp.Diff(want, ch.service.backends, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Fatalf("backends (-want +got)\n%s", diff)
			}
			if slices.Contains(had, ch.added) {
				t.Fatalf("%v is no new endpoint of %s", ch.added, ch.service.name)
			}
			changed[ch.service.name] = true
		}
		if want := n - n/emptyEvery; len(changed) != want {
			t.Errorf("%d services were changed, want %d", len(changed), want)
		}
	}
	used := map[netip.Addr]int{}
	for _, s := range c.services {
		for _, b := range s.backends {
			used[b]++
		}
	}
	for a, n := range used {
		if n > 1 {
			t.Errorf("%v is an endpoint %d times", a, n)
		}
	}
}

func TestProbesReachTheEndsOfTheCluster(t *testing.T) {
	for n := emptyEvery; n <= 300; n += emptyEvery {
		c := &cluster{spare: newAddresses(), load: load{endpoints: 2}}
		c.plan(n)
		for i := range c.services {
			c.services[i].vip = netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		}
		trial := &trial{cfg: config{SharedPorts: 7}, cluster: c}
		probes := trial.probes()
		for _, want := range []netip.AddrPort{
			at(c.services[0].vip, servicePort), at(c.services[n-1].vip, servicePort),
			at(sharedIP, firstSharedPort), at(sharedIP, firstSharedPort+6),
		} {
			if !slices.Contains(probes, want) {
				t.Errorf("%d services: %v is not among %v", n, want, probes)
			}
		}
		served := addressSet(c.services)
		for _, p := range probes {
			if p.Port() == servicePort && !served[p.Addr()] {
				t.Errorf("%d services: %v has no endpoints", n, p)
			}
		}
	}
}

func TestDestinationsKeepTheOrderOfRules(t *testing.T) {
	got := destinations(`-N KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.3.9/32 -p tcp -m comment --comment "default/service-00002:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-B
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-A
-A KUBE-SERVICES -d 10.0.0.0/8 -j RETURN
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SERVICES -d
`)
	want := []netip.Addr{netip.MustParseAddr("10.96.3.9"), netip.MustParseAddr("10.96.0.1")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
