package policy_test

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

func drawEndpoint(t *rapid.T, family proxy.Family) policy.Endpoint {
	last := rapid.SampledFrom([]string{"1", "2", "3", "4"}).Draw(t, "address")
	text := map[proxy.Family]string{proxy.IPv4: "10.0.0.", proxy.IPv6: "fd00:1::"}[family] + last
	hints := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"zone-a", "zone-b"}), 0, 2, rapid.ID)
	onNodes := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{here, there}), 0, 2, rapid.ID)
	return policy.Endpoint{
		Addr:        addr(text),
		NodeName:    rapid.SampledFrom([]string{here, there, ""}).Draw(t, "node"),
		Ready:       rapid.Bool().Draw(t, "ready"),
		Serving:     rapid.Bool().Draw(t, "serving"),
		Terminating: rapid.Bool().Draw(t, "terminating"),
		Zones:       hints.Draw(t, "zones"),
		Nodes:       onNodes.Draw(t, "nodes"),
	}
}

func drawSlice(t *rapid.T) *policy.Slice {
	s := &policy.Slice{Family: rapid.SampledFrom(proxy.Families[:]).Draw(t, "family")}
	protocols := rapid.SampledFrom([]proxy.Protocol{proxy.TCP, proxy.UDP})
	for range rapid.IntRange(0, 3).Draw(t, "ports") {
		s.Ports = append(s.Ports, policy.SlicePort{
			Name:     rapid.SampledFrom([]string{"http", "dns", ""}).Draw(t, "port"),
			Protocol: protocols.Draw(t, "protocol"),
			Port:     rapid.Uint16Range(8080, 8082).Draw(t, "number"),
		})
	}
	for range rapid.IntRange(0, 5).Draw(t, "endpoints") {
		s.Endpoints = append(s.Endpoints, drawEndpoint(t, s.Family))
	}
	return s
}

func drawService(t *rapid.T) *policy.Service {
	s := service()
	s.Ports = nil
	for range rapid.IntRange(0, 3).Draw(t, "ports") {
		s.Ports = append(s.Ports, policy.Port{
			Name:     rapid.SampledFrom([]string{"http", "dns", ""}).Draw(t, "port"),
			Protocol: rapid.SampledFrom([]proxy.Protocol{proxy.TCP, proxy.UDP}).Draw(t, "protocol"),
			Port:     rapid.Uint16Range(80, 82).Draw(t, "number"),
			NodePort: rapid.SampledFrom([]uint16{0, 80, 30080, 30081}).Draw(t, "node port"),
		})
	}
	ips := rapid.SliceOfN(rapid.SampledFrom(addrs("172.30.0.41", "203.0.113.1", "203.0.113.2", "2001:db8:2::1", "0.0.0.0")), 0, 4)
	s.ExternalIPs, s.LoadBalancerIPs = ips.Draw(t, "external IPs"), ips.Draw(t, "load-balancer IPs")
	s.SourceRanges = rapid.SliceOfN(rapid.SampledFrom(prefixes("192.168.0.0/16", "192.168.0.2/32", "203.0.113.0/24", "::/0", "0.0.0.0/0")), 0, 3).Draw(t, "ranges")
	s.InternalLocal, s.ExternalLocal = rapid.Bool().Draw(t, "internal"), rapid.Bool().Draw(t, "external")
	s.HealthCheckNodePort = rapid.SampledFrom([]uint16{0, 32000}).Draw(t, "health check")
	return s
}

func drawNode(t *rapid.T) *proxy.Node {
	n := node()
	if rapid.Bool().Draw(t, "pods unknown") {
		noPodSource(n)
	}
	n.MasqueradeAll = rapid.Bool().Draw(t, "masquerade all")
	n.Zone = rapid.SampledFrom([]string{"", "zone-a"}).Draw(t, "zone")
	if rapid.Bool().Draw(t, "IPv6") {
		ipv6(n)
	}
	return n
}

// What a mode may rely on, whatever the objects say.
func TestResolveKeepsTheContractOfServicePort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := input(drawService(t), rapid.SliceOfN(rapid.Custom(drawSlice), 0, 4).Draw(t, "slices")...)
		n := drawNode(t)
		ports := policy.Resolve(in, n)
		owned := map[proxy.FrontendKey]bool{}
		for i, sp := range ports {
			if i > 0 && ports[i-1].Name.Compare(sp.Name) >= 0 {
				t.Fatalf("%v does not come after %v", sp.Name, ports[i-1].Name)
			}
			checkFrontends(t, sp, n, owned)
			checkPools(t, sp)
		}
	})
}

func checkFrontends(t *rapid.T, sp *proxy.ServicePort, n *proxy.Node, owned map[proxy.FrontendKey]bool) {
	for i, f := range sp.Frontends {
		key := proxy.FrontendKey{Addr: f.Addr, Protocol: sp.Name.Protocol}
		if owned[key] {
			t.Fatalf("%v has two frontends", key)
		}
		owned[key] = true
		if !n.Family.Has(f.Addr.Addr()) || f.Addr.Addr().IsUnspecified() != (f.Kind == proxy.NodePort) {
			t.Fatalf("%v has the address %v", f.Kind, f.Addr)
		}
		if i > 0 {
			if p := sp.Frontends[i-1]; p.Kind > f.Kind || p.Kind == f.Kind && p.Addr.Compare(f.Addr) >= 0 {
				t.Fatalf("frontends are not sorted: %v", sp.Frontends)
			}
		}
		for j := 1; j < len(f.Allowed); j++ {
			if f.Allowed[j-1].Compare(f.Allowed[j]) >= 0 || f.Allowed[j-1].Overlaps(f.Allowed[j]) {
				t.Fatalf("allowed sources are not sorted and disjoint: %v", f.Allowed)
			}
		}
		for source, r := range f.Routes {
			if r.Verdict == proxy.Forward && len(sp.Backends(r.Pool)) == 0 {
				t.Fatalf("%v %v is forwarded to nobody", f.Kind, proxy.Source(source))
			}
			if r.Verdict != proxy.Forward && r != (proxy.Route{Verdict: r.Verdict}) {
				t.Fatalf("%v %v is refused and says more: %v", f.Kind, proxy.Source(source), r)
			}
		}
		if n.PodSource.Kind == proxy.PodSourceNone && f.Routes[proxy.FromPod] != f.Routes[proxy.FromOutside] {
			t.Fatalf("%v tells pods apart: %v", f.Kind, f.Routes)
		}
	}
}

func checkPools(t *rapid.T, sp *proxy.ServicePort) {
	for _, p := range []proxy.Pool{proxy.ClusterPool, proxy.LocalPool} {
		list := sp.Backends(p)
		uses := slices.ContainsFunc(sp.Frontends, func(f proxy.Frontend) bool { return f.Routes.Uses(p) })
		if uses != (list != nil) {
			t.Fatalf("%v pool is %v, used: %t", p, list, uses)
		}
		for i, b := range list {
			if i > 0 && list[i-1].Compare(b) >= 0 {
				t.Fatalf("%v pool is not sorted: %v", p, list)
			}
			if sp.Name.Protocol == proxy.UDP && !slices.Contains(sp.Keep, b.Addr) {
				t.Fatalf("flows to the backend %v would be deleted", b.Addr)
			}
		}
	}
	if sp.Name.Protocol != proxy.UDP && sp.Keep != nil || !slices.IsSortedFunc(sp.Keep, netip.AddrPort.Compare) {
		t.Fatalf("keep is %v", sp.Keep)
	}
	if !slices.IsSortedFunc(sp.LocalReady, netip.Addr.Compare) || sp.HealthCheckNodePort == 0 && sp.LocalReady != nil {
		t.Fatalf("local ready is %v", sp.LocalReady)
	}
}

func TestOrderOfSlicesAndEndpointsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := input(drawService(t), rapid.SliceOfN(rapid.Custom(drawSlice), 0, 4).Draw(t, "slices")...)
		n := drawNode(t)
		seed := rapid.Uint64().Draw(t, "seed")
		if a, b := policy.Resolve(in, n), policy.Resolve(shuffled(in, seed), n); !slices.EqualFunc(a, b, (*proxy.ServicePort).Equal) {
			t.Fatalf("%v became %v", a, b)
		}
	})
}

func shuffled(in policy.Input, seed uint64) policy.Input {
	random := rand.New(rand.NewPCG(seed, 0))
	service := *in.Service
	service.ExternalIPs = shuffle(random, service.ExternalIPs)
	service.LoadBalancerIPs = shuffle(random, service.LoadBalancerIPs)
	service.SourceRanges = shuffle(random, service.SourceRanges)
	in.Service, in.Slices = &service, shuffle(random, in.Slices)
	for i, s := range in.Slices {
		in.Slices[i] = &policy.Slice{Family: s.Family, Ports: shuffle(random, s.Ports), Endpoints: shuffle(random, s.Endpoints)}
	}
	return in
}

func shuffle[T any](random *rand.Rand, list []T) []T {
	list = slices.Clone(list)
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func TestResolveLeavesItsInputAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := input(drawService(t), drawSlice(t), drawSlice(t))
		copied := shuffled(in, 0)
		copied.Slices = nil
		for _, s := range in.Slices {
			copied.Slices = append(copied.Slices, &policy.Slice{Family: s.Family, Ports: slices.Clone(s.Ports), Endpoints: slices.Clone(s.Endpoints)})
		}
		copied.Service.ExternalIPs = slices.Clone(in.Service.ExternalIPs)
		copied.Service.LoadBalancerIPs = slices.Clone(in.Service.LoadBalancerIPs)
		copied.Service.SourceRanges = slices.Clone(in.Service.SourceRanges)
		policy.Resolve(in, drawNode(t))
		if !reflect.DeepEqual(in, copied) {
			t.Fatalf("%v became %v", copied, in)
		}
	})
}

func TestServicePortCarriesWhatModesNeed(t *testing.T) {
	sp := resolveOne(t, input(service(func(s *policy.Service) { s.Priority, s.Affinity = true, 3*time.Hour })), node())
	diff(t, "name", proxy.ServicePortName{Namespace: "ns", Name: "svc", Port: "http", Protocol: proxy.TCP}, sp.Name)
	diff(t, "priority", true, sp.Priority)
	diff(t, "affinity", 3*time.Hour, sp.Affinity)
}

// Indifferent must know each fact that some Input brings to light, and call all others irrelevant.
func TestIndifferentKnowsWhatResolveReads(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*proxy.Node)
		want   bool
	}{
		"family":          {ipv6, false},
		"name":            {func(n *proxy.Node) { n.Name = there }, false},
		"zone":            {func(n *proxy.Node) { n.Zone = "zone-b" }, false},
		"address":         {func(n *proxy.Node) { n.IP = addr("192.168.0.3") }, false},
		"pods unknown":    {noPodSource, false},
		"masquerade all":  {masqueradeAll, false},
		"pod range":       {func(n *proxy.Node) { n.PodSource.Prefix = netip.MustParsePrefix("10.1.0.0/16") }, true},
		"pod interface":   {func(n *proxy.Node) { n.PodSource = proxy.PodSource{Kind: proxy.PodSourceInterface, Interface: "cni0"} }, true},
		"other addresses": {func(n *proxy.Node) { n.Addrs = addrs("192.168.0.9") }, true},
		"node ports":      {func(n *proxy.Node) { n.NodePorts.All = true }, true},
		"mark":            {func(n *proxy.Node) { n.MasqueradeMark = 1 }, true},
		"service ranges":  {func(n *proxy.Node) { n.ServiceCIDRs = prefixes("172.30.0.0/16") }, true},
	} {
		if got := policy.Indifferent(node(), node(c.change)); got != c.want {
			t.Errorf("%s: Indifferent is %t", name, got)
		}
		in := input(service(externalLocal, ranges("192.168.0.2/32")),
			slice(ep("10.0.0.1", local, zones("zone-a")), ep("10.0.0.2", zones("zone-b"))))
		same := slices.EqualFunc(policy.Resolve(in, node()), policy.Resolve(in, node(c.change)), (*proxy.ServicePort).Equal)
		if same != c.want {
			t.Errorf("%s: Resolve gives the same: %t", name, same)
		}
	}
}

// Of 300,000 endpoints every byte counts.
func TestSizes(t *testing.T) {
	if got := unsafe.Sizeof(policy.Endpoint{}); got > 96 {
		t.Errorf("an Endpoint takes %d bytes, more than 96", got)
	}
}

func TestEqualSeesEveryField(t *testing.T) {
	full := func() (*policy.Service, *policy.Slice) {
		s := service(ranges("192.0.2.0/24"))
		return s, slice(ep("10.0.0.1", zones("zone-a"), nodes(here)))
	}
	a, aSlice := full()
	b, bSlice := full()
	if !a.Equal(b) || !aSlice.Equal(bSlice) {
		t.Fatal("equal values are told apart")
	}
	for i := range reflect.TypeFor[policy.Service]().NumField() {
		changed, _ := full()
		flip(reflect.ValueOf(changed).Elem().Field(i))
		if a.Equal(changed) {
			t.Errorf("a change of Service.%s is not seen", reflect.TypeFor[policy.Service]().Field(i).Name)
		}
	}
	for i := range reflect.TypeFor[policy.Slice]().NumField() {
		_, changed := full()
		flip(reflect.ValueOf(changed).Elem().Field(i))
		if aSlice.Equal(changed) {
			t.Errorf("a change of Slice.%s is not seen", reflect.TypeFor[policy.Slice]().Field(i).Name)
		}
	}
	for i := range reflect.TypeFor[policy.Endpoint]().NumField() {
		_, changed := full()
		flip(reflect.ValueOf(&changed.Endpoints[0]).Elem().Field(i))
		if aSlice.Equal(changed) {
			t.Errorf("a change of Endpoint.%s is not seen", reflect.TypeFor[policy.Endpoint]().Field(i).Name)
		}
	}
}

// flip gives a field a value that it does not have.
func flip(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(v.Uint() + 1)
	default:
		if v.Kind() == reflect.Slice && v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			return
		}
		zero := reflect.Zero(v.Type())
		if v.IsZero() { // only time.Time is zero in the fixtures
			zero = reflect.ValueOf(time.Unix(1, 0))
		}
		v.Set(zero)
	}
}
