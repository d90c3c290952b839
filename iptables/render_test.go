package iptables

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-proxy/sluice/proxy"
)

// TestRenderedRoutesMeanTheTable compares what rules do with what the table of routes says, for any table.
func TestRenderedRoutesMeanTheTable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		w.change(rt)
		w.change(rt)
		k := content(rt, w.snap)
		n := w.snap.Node()
		tr := k.tracer(t, n)
		for _, sp := range w.snap.All() {
			for _, f := range sp.Frontends {
				for _, who := range []string{"pod", "node", "outside"} {
					p := w.f.from(who, at(w.f, f))
					p.protocol = sp.Name.Protocol
					want, got := expected(n, sp, f, p), tr.trace(p)
					if diff := differs(want, got, sp, p); diff != "" {
						rt.Fatalf("%v %v from %s: want %s, got %v: %s\n%+v", sp.Name, f.Addr, who, want, got, diff, f)
					}
				}
			}
		}
	})
}

// at is where clients find a frontend.
func at(f family, fr proxy.Frontend) netip.AddrPort {
	if fr.Kind == proxy.NodePort {
		return f.port(nodeIP, fr.Addr.Port())
	}
	return fr.Addr
}

// expected says what should become of p, in the words of fates; "cluster" and "local" are pools.
func expected(n *proxy.Node, sp *proxy.ServicePort, f proxy.Frontend, p packet) string {
	if f.Kind == proxy.NodePort && !n.NodePorts.All && !slices.Contains(n.NodePorts.Addrs, p.dst.Addr()) {
		return "pass"
	}
	r := newRenderer(n)
	route := r.routes(sp, f)[classOf(n, p)]
	if f.Allowed != nil {
		allowed := false
		for _, prefix := range f.Allowed {
			allowed = allowed || prefix.Contains(p.src)
		}
		if !allowed {
			return "drop"
		}
	}
	switch route.Verdict {
	case proxy.Forward:
		if route.Masquerade {
			return route.Pool.String() + " masquerade"
		}
		return route.Pool.String()
	case proxy.Drop:
		return "drop"
	}
	return "refused"
}

func classOf(n *proxy.Node, p packet) proxy.Source {
	s := n.PodSource
	pod := s.Kind == proxy.PodSourcePrefix && s.Prefix.Contains(p.src) ||
		s.Kind == proxy.PodSourceInterface && s.Interface == p.in ||
		s.Kind == proxy.PodSourceInterfacePrefix && strings.HasPrefix(p.in, s.Interface)
	switch {
	case pod:
		return proxy.FromPod
	case p.in == "":
		return proxy.FromNode
	}
	return proxy.FromOutside
}

// differs compares fates with what is expected, and says what is wrong.
func differs(want string, got fates, sp *proxy.ServicePort, p packet) string {
	switch want {
	case "drop", "pass":
		if len(got) != 1 || got[want] == 0 {
			return "another fate"
		}
		return ""
	case "refused":
		// A table that rejects some and drops others may do either to all of them.
		if len(got) != 1 || got["reject"]+got["drop"] == 0 {
			return "not refused"
		}
		return ""
	}
	pool, masquerade, _ := strings.Cut(want, " ")
	backends := sp.Cluster
	if pool == "local" {
		backends = sp.Local
	}
	if len(got) != len(backends) {
		return fmt.Sprintf("%d outcomes for %d backends", len(got), len(backends))
	}
	for _, b := range backends {
		outcome := b.Addr.String()
		if masquerade != "" || b.Local && b.Addr.Addr() == p.src {
			outcome += " masquerade"
		}
		if math.Abs(got[outcome]-1/float64(len(backends))) > 1e-6 {
			return fmt.Sprintf("%s has probability %v", outcome, got[outcome])
		}
	}
	return ""
}

func TestEveryBackendOfAPoolIsEquallyLikely(t *testing.T) {
	for _, count := range []int{1, 2, 3, 32, 33, 100, 500, 1500} {
		s := service{name: "big", clusterIP: "10.96.0.1"}
		for i := range count {
			s.remote = append(s.remote, fmt.Sprintf("10.1.%d.%d", 1+i/200, 1+i%200))
		}
		n := v4.node()
		_, k := applied(t, snapshot(n, s))
		got := k.tracer(t, n).trace(v4.from("outside", v4.port("10.96.0.1", 80)))
		if len(got) != count || !got.uniform() {
			t.Errorf("%d backends: %d outcomes, not all of the same probability", count, len(got))
		}
	}
}

func TestAffinityKeepsTheBackendThatKnowsTheClient(t *testing.T) {
	for _, count := range []int{3, 50} {
		s := service{name: "sticky", clusterIP: "10.96.0.1", affinity: 89500 * time.Millisecond, remote: many("10.1.7.", count)}
		n := v4.node()
		snap := snapshot(n, s)
		_, k := applied(t, snap)
		checkGraph(t, k)
		tr := k.tracer(t, n)
		p := v4.from("outside", v4.port("10.96.0.1", 80))
		if got := tr.trace(p); len(got) != count || !got.uniform() {
			t.Errorf("a new client: %v", got)
		}
		for _, sp := range snap.All() {
			b := sp.Cluster[2]
			tr.remembered = map[string]bool{endpointOf(sp, b): true}
			if got := tr.trace(p); got[b.Addr.String()+" masquerade"] != 1 {
				t.Errorf("a client of %v: %v", b.Addr, got)
			}
		}
		if !strings.Contains(k.Dump(), "--seconds 90 ") {
			t.Error("the timeout is not in the rules")
		}
	}
}

// TestChangeOfOneBackendRewritesAGroup holds for pools that are large enough to have groups.
func TestChangeOfOneBackendRewritesAGroup(t *testing.T) {
	s := service{name: "big", clusterIP: "10.96.0.1", remote: append(many("10.1.7.", 200), many("10.1.8.", 200)...)}
	n := v4.node()
	d, k := applied(t, snapshot(n, s))
	k.forget()
	s.remote = append(s.remote, "10.1.9.1")
	report := mustApply(t, d, snapshot(n, s))
	// One group of about 25, and the pool's chain, which names 16.
	if writes := report.Tables[0].Writes; writes > 70 || report.Tables[1].Writes > 0 {
		t.Errorf("%d and %d rules were written for one of 401 backends", writes, report.Tables[1].Writes)
	}
}

func TestNamesAndCommentsFit(t *testing.T) {
	long := strings.Repeat("x", 63)
	name := proxy.ServicePortName{Namespace: long, Name: long, Port: strings.Repeat("p", 15), Protocol: proxy.SCTP}
	for _, kind := range append([]string{serviceChain, localChain, sourcesChain, groupChain, endpointChain}, routeChains[:]...) {
		if chain := chainOf(kind, name, "detail"); len(chain) > maxChainName {
			t.Errorf("%s has %d characters", chain, len(chain))
		}
	}
	text := comment(name.String() + " load balancer IP")
	if !strings.HasSuffix(text, `load balancer IP"`) {
		t.Errorf("the longest name there is was cut: %s", text)
	}
	for _, hostile := range []string{`a" -j ACCEPT`, "a\nCOMMIT", `a\`, "ü", strings.Repeat("y", 999)} {
		got := comment(hostile)
		inner := strings.TrimSuffix(strings.TrimPrefix(got, `-m comment --comment "`), `"`)
		if len(inner) > maxComment || strings.ContainsAny(inner, "\"\n\\") {
			t.Errorf("%q became %q", hostile, got)
		}
	}
}

func TestChainNamesTellServicePortsApart(t *testing.T) {
	a := proxy.ServicePortName{Namespace: "a", Name: "b", Port: "c", Protocol: proxy.TCP}
	seen := map[string]proxy.ServicePortName{}
	for _, n := range []proxy.ServicePortName{
		a,
		{Namespace: "a", Name: "b", Port: "c", Protocol: proxy.UDP},
		{Namespace: "a", Name: "bc", Port: "", Protocol: proxy.TCP},
		{Namespace: "ab", Name: "", Port: "c", Protocol: proxy.TCP},
	} {
		chain := chainOf(serviceChain, n)
		if other, ok := seen[chain]; ok {
			t.Errorf("%v and %v are both %s", n, other, chain)
		}
		seen[chain] = n
	}
	// A restart must find the lists of affinity again: names are for ever.
	if got, want := chainOf(serviceChain, a), "SLUICE-SVC-OV6D7MB6VN3IESX7"; got != want {
		t.Errorf("%v is %s, want %s", a, got, want)
	}
}

func TestPodMatches(t *testing.T) {
	prefix := netip.MustParsePrefix("10.1.0.0/16")
	for want, s := range map[string]proxy.PodSource{
		"":                   {},
		"-s 10.1.0.0/16":     {Kind: proxy.PodSourcePrefix, Prefix: prefix},
		"-i cbr0":            {Kind: proxy.PodSourceInterface, Interface: "cbr0"},
		"-i cali+":           {Kind: proxy.PodSourceInterfacePrefix, Interface: "cali"},
		"-i abcdefghijklmno": {Kind: proxy.PodSourceInterfacePrefix, Interface: "abcdefghijklmno"},
	} {
		if got := podMatch(s); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}
