package nodeinfo

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy"
)

var compare = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func addrs(texts ...string) []netip.Addr {
	var as []netip.Addr
	for _, t := range texts {
		as = append(as, netip.MustParseAddr(t))
	}
	return as
}

func prefixes(texts ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, t := range texts {
		ps = append(ps, netip.MustParsePrefix(t))
	}
	return ps
}

func node(change func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	if change != nil {
		change(n)
	}
	return n
}

func withIPs(ips ...string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		for _, ip := range ips {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
		}
	}
}

func newInfo(change func(*Config)) *Info {
	cfg := Config{Name: "n1", Families: proxy.Families[:]}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

func received(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestEqualFactsKeepThePointerAndSayNothing(t *testing.T) {
	i := newInfo(nil)
	object := node(withIPs("192.0.2.1", "2001:db8::1"))
	i.SetNode(object)
	i.SetAddrs(addrs("127.0.0.1", "192.0.2.1"))
	if !received(i.Changed()) {
		t.Fatal("new facts were not announced")
	}
	v4, v6 := i.Node(proxy.IPv4), i.Node(proxy.IPv6)
	relabelled := object.DeepCopy()
	relabelled.Labels = map[string]string{"a": "b"}
	i.SetNode(relabelled)
	i.SetAddrs(addrs("127.0.0.1", "192.0.2.1"))
	if received(i.Changed()) || i.Node(proxy.IPv4) != v4 || i.Node(proxy.IPv6) != v6 {
		t.Error("equal facts made a new node")
	}
	i.SetAddrs(addrs("127.0.0.1", "192.0.2.1", "192.0.2.9"))
	if !received(i.Changed()) || i.Node(proxy.IPv4) == v4 {
		t.Error("a new IPv4 address made no new IPv4 node")
	}
	if i.Node(proxy.IPv6) != v6 {
		t.Error("a new IPv4 address made a new IPv6 node")
	}
}

func TestNodeIPs(t *testing.T) {
	external := func(ip string) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: ip})
		}
	}
	for name, c := range map[string]struct {
		bind   string
		object func(*corev1.Node)
		v4, v6 string
	}{
		"none":                   {},
		"one internal":           {object: withIPs("192.0.2.1"), v4: "192.0.2.1"},
		"first of each family":   {object: withIPs("2001:db8::1", "192.0.2.1", "192.0.2.2"), v4: "192.0.2.1", v6: "2001:db8::1"},
		"external":               {object: external("198.51.100.1"), v4: "198.51.100.1"},
		"internal over external": {object: func(n *corev1.Node) { external("198.51.100.1")(n); withIPs("192.0.2.1")(n) }, v4: "192.0.2.1"},
		"unusable text":          {object: withIPs("node-1", "0.0.0.0", "192.0.2.1"), v4: "192.0.2.1"},
		"mapped":                 {object: withIPs("::ffff:192.0.2.1"), v4: "192.0.2.1"},
		"bind address":           {bind: "192.0.2.7", object: withIPs("192.0.2.1", "2001:db8::1"), v4: "192.0.2.7", v6: "2001:db8::1"},
		"unspecified bind":       {bind: "0.0.0.0", object: withIPs("192.0.2.1"), v4: "192.0.2.1"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInfo(func(cfg *Config) { cfg.BindAddress, _ = netip.ParseAddr(c.bind) })
			i.SetNode(node(c.object))
			v4, _ := netip.ParseAddr(c.v4)
			v6, _ := netip.ParseAddr(c.v6)
			if got := [2]netip.Addr{i.Node(proxy.IPv4).IP, i.Node(proxy.IPv6).IP}; got != [2]netip.Addr{v4, v6} {
				t.Errorf("got %v, want %v %v", got, v4, v6)
			}
		})
	}
}

func TestStandaloneNodeTakesItsIPFromItsInterfaces(t *testing.T) {
	i := newInfo(func(cfg *Config) { cfg.Standalone = true })
	i.SetAddrs(addrs("127.0.0.1", "::1", "169.254.1.1", "192.0.2.9", "192.0.2.1", "fe80::1", "2001:db8::1"))
	if got, want := i.Node(proxy.IPv4).IP, netip.MustParseAddr("192.0.2.9"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := i.Node(proxy.IPv6).IP, netip.MustParseAddr("2001:db8::1"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOwnAddressesAreSortedWithoutLinkLocalOnes(t *testing.T) {
	i := newInfo(nil)
	i.SetAddrs(addrs("192.0.2.9", "fe80::1", "192.0.2.1", "2001:db8::2", "169.254.3.4", "192.0.2.9"))
	if diff := cmp.Diff(addrs("192.0.2.1", "192.0.2.9"), i.Node(proxy.IPv4).Addrs, compare); diff != "" {
		t.Errorf("IPv4 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(addrs("2001:db8::2"), i.Node(proxy.IPv6).Addrs, compare); diff != "" {
		t.Errorf("IPv6 (-want +got):\n%s", diff)
	}
}

func TestNodePortSelection(t *testing.T) {
	all := proxy.NodePortAddrs{All: true}
	allAndLocalhost := proxy.NodePortAddrs{All: true, Localhost: true}
	some := func(as ...string) proxy.NodePortAddrs { return proxy.NodePortAddrs{Addrs: addrs(as...)} }
	relayed := func(as ...string) proxy.NodePortAddrs { return proxy.NodePortAddrs{Addrs: addrs(as...), Relayed: true} }
	for name, c := range map[string]struct {
		values  []string
		without bool // localhost NodePorts are off
		v4, v6  proxy.NodePortAddrs
	}{
		"unset":                    {v4: allAndLocalhost, v6: all},
		"unset, no localhost":      {without: true, v4: all, v6: all},
		"all":                      {values: []string{"all"}, v4: allAndLocalhost, v6: all},
		"zero CIDR":                {values: []string{"0.0.0.0/0", "2001:db8::/32"}, v4: allAndLocalhost, v6: some("2001:db8::1")},
		"zero CIDR wins":           {values: []string{"192.0.2.1/32", "0.0.0.0/0"}, v4: allAndLocalhost, v6: all},
		"CIDR of one family":       {values: []string{"192.0.2.0/24"}, v4: some("192.0.2.1", "192.0.2.9"), v6: all},
		"CIDR without an address":  {values: []string{"203.0.113.0/24"}, v4: some(), v6: all},
		"primary":                  {values: []string{"primary"}, v4: some("192.0.2.1"), v6: some()},
		"localhost":                {values: []string{"localhost"}, v4: proxy.NodePortAddrs{Localhost: true}, v6: relayed()},
		"localhost switched off":   {values: []string{"localhost"}, without: true, v4: relayed(), v6: relayed()},
		"localhost and all":        {values: []string{"localhost", "all"}, v4: allAndLocalhost, v6: proxy.NodePortAddrs{All: true, Relayed: true}},
		"primary and localhost":    {values: []string{"primary", "localhost"}, v4: proxy.NodePortAddrs{Addrs: addrs("192.0.2.1"), Localhost: true}, v6: relayed()},
		"primary and CIDR":         {values: []string{"primary", "198.51.100.0/24"}, v4: some("192.0.2.1", "198.51.100.1"), v6: some()},
		"loopback CIDR":            {values: []string{"127.0.0.0/8", "198.51.100.0/24"}, v4: proxy.NodePortAddrs{Addrs: addrs("198.51.100.1"), Localhost: true}, v6: all},
		"one loopback address":     {values: []string{"127.0.0.1/32"}, v4: proxy.NodePortAddrs{Localhost: true}, v6: all},
		"loopback address off":     {values: []string{"primary", "127.0.0.1/32"}, without: true, v4: relayed("192.0.2.1"), v6: some()},
		"another loopback address": {values: []string{"127.0.0.2/32"}, without: true, v4: some(), v6: all},
		"wider than loopback":      {values: []string{"126.0.0.0/7"}, without: true, v4: some(), v6: all},
		"IPv6 loopback":            {values: []string{"::1/128"}, v4: allAndLocalhost, v6: relayed()},
		"host bits set":            {values: []string{"198.51.100.77/24", "::/0"}, v4: some("198.51.100.1"), v6: all},
	} {
		t.Run(name, func(t *testing.T) {
			selection, err := ParseNodePortSelection(c.values)
			if err != nil {
				t.Fatal(err)
			}
			i := newInfo(func(cfg *Config) { cfg.NodePorts, cfg.LocalhostNodePorts = selection, !c.without })
			i.SetNode(node(withIPs("192.0.2.1")))
			i.SetAddrs(addrs("127.0.0.1", "::1", "198.51.100.1", "192.0.2.9", "192.0.2.1", "2001:db8::1"))
			for f, want := range map[proxy.Family]proxy.NodePortAddrs{proxy.IPv4: c.v4, proxy.IPv6: c.v6} {
				if diff := cmp.Diff(want, i.Node(f).NodePorts, compare); diff != "" {
					t.Errorf("%v (-want +got):\n%s", f, diff)
				}
			}
		})
	}
}

// TestLocalhostIsRelayedWhereTheModeCannotServeIt has a mode that does not translate loopback addresses.
func TestLocalhostIsRelayedWhereTheModeCannotServeIt(t *testing.T) {
	for name, c := range map[string]struct {
		values  []string
		without bool
		v4, v6  bool
	}{
		"unset":                   {v4: true},
		"unset, not wanted":       {without: true},
		"everything":              {values: []string{"all"}, v4: true},
		"primary":                 {values: []string{"primary"}},
		"localhost":               {values: []string{"localhost"}, v4: true, v6: true},
		"localhost, not wanted":   {values: []string{"localhost"}, without: true, v6: true},
		"loopback CIDR":           {values: []string{"127.0.0.0/8"}, v4: true},
		"IPv6 loopback":           {values: []string{"::1/128", "192.0.2.0/24"}, v6: true},
		"CIDR of other addresses": {values: []string{"192.0.2.0/24"}},
	} {
		selection, err := ParseNodePortSelection(c.values)
		if err != nil {
			t.Fatal(err)
		}
		i := newInfo(func(cfg *Config) {
			cfg.NodePorts, cfg.LocalhostNodePorts, cfg.RelayLocalhost = selection, !c.without, true
		})
		for f, want := range map[proxy.Family]bool{proxy.IPv4: c.v4, proxy.IPv6: c.v6} {
			if got := i.Node(f).NodePorts; got.Relayed != want || got.Localhost {
				t.Errorf("%s, %v: got %+v, want relayed: %v", name, f, got, want)
			}
		}
	}
}

func TestNodePortSelectionNamesEveryBadValue(t *testing.T) {
	_, err := ParseNodePortSelection([]string{"192.0.2.1", "primary", "eth0"})
	want := "\"192.0.2.1\" is neither a CIDR nor one of all, primary, localhost\n" +
		"\"eth0\" is neither a CIDR nor one of all, primary, localhost"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPrimaryFollowsTheNode(t *testing.T) {
	selection, err := ParseNodePortSelection([]string{"primary"})
	if err != nil {
		t.Fatal(err)
	}
	i := newInfo(func(cfg *Config) { cfg.NodePorts = selection })
	i.SetAddrs(addrs("192.0.2.1", "192.0.2.2"))
	i.SetNode(node(withIPs("192.0.2.1")))
	i.SetNode(node(withIPs("192.0.2.2")))
	if diff := cmp.Diff(addrs("192.0.2.2"), i.Node(proxy.IPv4).NodePorts.Addrs, compare); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPodSources(t *testing.T) {
	prefix := func(p string) proxy.PodSource {
		return proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: netip.MustParsePrefix(p)}
	}
	bridge := proxy.PodSource{Kind: proxy.PodSourceInterface, Interface: "br0"}
	veths := proxy.PodSource{Kind: proxy.PodSourceInterfacePrefix, Interface: "veth"}
	for name, c := range map[string]struct {
		detector PodDetector
		podCIDRs []string
		v4, v6   proxy.PodSource
	}{
		"none":                      {},
		"cluster, no CIDR":          {detector: PodDetector{Mode: ClusterCIDR}, podCIDRs: []string{"10.0.1.0/24"}},
		"cluster, one family":       {detector: PodDetector{Mode: ClusterCIDR, ClusterCIDRs: prefixes("10.0.0.0/8")}, v4: prefix("10.0.0.0/8")},
		"cluster, the first counts": {detector: PodDetector{Mode: ClusterCIDR, ClusterCIDRs: prefixes("fd00::/48", "10.0.0.0/8", "11.0.0.0/8")}, v4: prefix("10.0.0.0/8"), v6: prefix("fd00::/48")},
		"node":                      {detector: PodDetector{Mode: NodeCIDR, ClusterCIDRs: prefixes("10.0.0.0/8")}, podCIDRs: []string{"10.0.1.0/24", "fd00:1::/64"}, v4: prefix("10.0.1.0/24"), v6: prefix("fd00:1::/64")},
		"node without podCIDRs":     {detector: PodDetector{Mode: NodeCIDR}},
		"bridge":                    {detector: PodDetector{Mode: BridgeInterface, Interface: "br0"}, v4: bridge, v6: bridge},
		"interface prefix":          {detector: PodDetector{Mode: InterfaceNamePrefix, Interface: "veth"}, v4: veths, v6: veths},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInfo(func(cfg *Config) { cfg.PodDetector = c.detector })
			i.SetNode(node(func(n *corev1.Node) { n.Spec.PodCIDRs = c.podCIDRs }))
			if got := i.Node(proxy.IPv4).PodSource; got != c.v4 {
				t.Errorf("IPv4: got %v, want %v", got, c.v4)
			}
			if got := i.Node(proxy.IPv6).PodSource; got != c.v6 {
				t.Errorf("IPv6: got %v, want %v", got, c.v6)
			}
		})
	}
}

func TestNodeObjectMadeAnewLosesNoFact(t *testing.T) {
	i := newInfo(func(cfg *Config) { cfg.PodDetector.Mode = NodeCIDR })
	i.SetNode(node(func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"10.0.1.0/24"}; withIPs("192.0.2.1")(n) }))
	before := i.Node(proxy.IPv4)
	i.SetNode(node(nil))
	if i.Node(proxy.IPv4) != before {
		t.Errorf("got %+v, want %+v", i.Node(proxy.IPv4), before)
	}
	i.SetNode(node(func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"10.0.2.0/24"} }))
	if got, want := i.Node(proxy.IPv4).PodSource.Prefix, netip.MustParsePrefix("10.0.2.0/24"); got != want {
		t.Errorf("changed podCIDR: got %v, want %v", got, want)
	}
}

func TestZoneFollowsTheLabel(t *testing.T) {
	i := newInfo(nil)
	for _, zone := range []string{"z1", "z2", ""} {
		i.SetNode(node(func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelTopologyZone: zone} }))
		if got := i.Node(proxy.IPv6).Zone; got != zone {
			t.Errorf("got %q, want %q", got, zone)
		}
	}
}

func TestServiceCIDRsLiveAsLongAsOneObjectHoldsThem(t *testing.T) {
	i := newInfo(func(cfg *Config) { cfg.ServiceCIDRs = prefixes("10.1.0.0/16") })
	i.SetServiceCIDRs("kubernetes", prefixes("10.96.0.0/12", "fd00:5::/108"))
	i.SetServiceCIDRs("more", prefixes("10.96.0.0/12", "10.1.0.0/16"))
	want := func(f proxy.Family, cidrs ...string) {
		t.Helper()
		if diff := cmp.Diff(prefixes(cidrs...), i.Node(f).ServiceCIDRs, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%v (-want +got):\n%s", f, diff)
		}
	}
	want(proxy.IPv4, "10.1.0.0/16", "10.96.0.0/12")
	want(proxy.IPv6, "fd00:5::/108")
	i.SetServiceCIDRs("kubernetes", nil)
	want(proxy.IPv4, "10.1.0.0/16", "10.96.0.0/12")
	want(proxy.IPv6)
	i.SetServiceCIDRs("more", nil)
	want(proxy.IPv4, "10.1.0.0/16")
}

// listedAfter is closed after some time.
func listedAfter(d time.Duration) <-chan struct{} {
	listed := make(chan struct{})
	time.AfterFunc(d, func() { close(listed) })
	return listed
}

// However long the API server is away, a Node gets its time from then on.
func TestWaitForNodeGoesOnWithoutAddressesAfterTheList(t *testing.T) {
	for _, away := range []time.Duration{0, 40 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			if err := newInfo(nil).WaitForNode(t.Context(), listedAfter(away)); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(began); waited != away+ipWait {
				t.Errorf("waited %v, want %v", waited, away+ipWait)
			}
		})
	}
}

func TestWaitForNodeEndsWithTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInfo(nil)
		i.SetNode(node(nil))
		time.AfterFunc(7*time.Second, func() { i.SetNode(node(withIPs("2001:db8::1"))) })
		began := time.Now()
		if err := i.WaitForNode(t.Context(), listedAfter(0)); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited != 7*time.Second {
			t.Errorf("waited %v, want 7s", waited)
		}
	})
}

func TestWaitForNodeInsistsOnPodCIDRsInTheirMode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInfo(func(cfg *Config) { cfg.PodDetector.Mode = NodeCIDR })
		i.SetNode(node(withIPs("192.0.2.1")))
		began := time.Now()
		if err := i.WaitForNode(t.Context(), listedAfter(time.Hour)); err == nil {
			t.Error("no error without podCIDRs")
		}
		if waited := time.Since(began); waited != time.Hour+podCIDRWait {
			t.Errorf("waited %v, want %v", waited, time.Hour+podCIDRWait)
		}
		i.SetNode(node(func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"10.0.1.0/24"} }))
		if err := i.WaitForNode(t.Context(), listedAfter(0)); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitForNodeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := newInfo(nil).WaitForNode(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that the deadline is exceeded", err)
		}
	})
}

func TestEligibility(t *testing.T) {
	now := metav1.Now()
	for name, c := range map[string]struct {
		change func(*corev1.Node)
		want   bool
	}{
		"plain":         {nil, true},
		"cordoned":      {func(n *corev1.Node) { n.Spec.Unschedulable = true }, true},
		"other taint":   {func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "other"}} }, true},
		"to be deleted": {func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "other"}, {Key: toBeDeleted}} }, false},
		"being deleted": {func(n *corev1.Node) { n.DeletionTimestamp = &now }, false},
	} {
		if got := Eligible(node(c.change)); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
