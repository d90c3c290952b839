package kernel_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/nftables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// Endpoints change as fast as they can be applied until both are reached.
const (
	leastApplies     = 100
	leastConnections = 6000
)

// TestKernelNftablesChurn changes endpoints at random, as fast as it goes, while clients connect to everything that is
// served. Every endpoint goes on answering after it was taken away, so whatever is refused or lost was so by the rules.
func TestKernelNftablesChurn(t *testing.T) {
	for _, f := range proxy.Families {
		t.Run(f.String(), func(t *testing.T) {
			c := &churn{Lab: lab.Start(t, lab.Config{}), t: t, f: f, random: rand.New(rand.NewPCG(7, uint64(f)))}
			c.prepare()
			ctx, stop := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for _, from := range []*lab.Host{c.Client, c.Pods[0], c.Node} {
				for _, protocol := range []proxy.Protocol{proxy.TCP, proxy.UDP} {
					clients.Go(func() { c.connect(ctx, from, protocol) })
				}
			}
			applies := 0
			for ; applies < leastApplies || c.connections.Load() < leastConnections && c.failures.Load() == 0; applies++ {
				c.change()
			}
			stop()
			clients.Wait()
			t.Logf("%d connections during %d changes of all Services", c.connections.Load(), applies)
			if n := c.untranslated(); n > 0 {
				t.Errorf("%d packets to a served frontend were not translated", n)
			}
		})
	}
}

// churn is a node whose Services change while others use them.
type churn struct {
	*lab.Lab
	t      *testing.T
	f      proxy.Family
	random *rand.Rand

	node      *proxy.Node
	dataplane proxy.Dataplane
	services  []*churned
	applied   *proxy.Snapshot

	connections, failures atomic.Int64
}

// churned is a Service with a TCP and a UDP port. Its kind decides which chains serve it.
type churned struct {
	name      string
	policy    policy.Service
	endpoints []policy.Endpoint
	frontends []netip.AddrPort
}

func (c *churn) in(addr string) netip.Addr { return lab.In(c.f, netip.MustParseAddr(addr)) }

// prepare serves everything once.
func (c *churn) prepare() {
	c.t.Helper()
	for _, h := range slices.Concat(c.Pods, c.RemotePods, []*lab.Host{c.Crowd}) {
		for _, protocol := range []proxy.Protocol{proxy.TCP, proxy.UDP} {
			if err := h.Serve(protocol, 8080); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	c.node = fuzzNode(c.f)
	c.node.Addrs = c.Node.Addrs(c.f)
	for i, change := range []func(*policy.Service){
		func(*policy.Service) {},
		func(s *policy.Service) { s.ExternalLocal = true },
		func(s *policy.Service) { s.Affinity = time.Minute },
		func(s *policy.Service) { s.ExternalLocal, s.Affinity = true, time.Second },
	} {
		c.services = append(c.services, c.service(i, change))
	}
	c.applied = proxy.NewSnapshot(c.node, nil)
	var err error
	if c.dataplane, err = nftables.NewMode(nftables.Config{DropInvalid: true}).New(c.f); err != nil {
		c.t.Fatal(err)
	}
	c.change()
	c.countUntranslated()
}

func (c *churn) service(i int, change func(*policy.Service)) *churned {
	cluster, external := c.in(fmt.Sprintf("10.96.0.%d", 10+i)), c.in(fmt.Sprintf("198.51.100.%d", 10+i))
	nodePort := uint16(30080 + i)
	s := &churned{name: fmt.Sprint("web-", i), policy: policy.Service{LoadBalancerIPs: []netip.Addr{external}}}
	s.policy.ClusterIPs[c.f] = cluster
	for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP} {
		s.policy.Ports = append(s.policy.Ports, policy.Port{Name: p.String(), Protocol: p, Port: 80, NodePort: nodePort})
	}
	change(&s.policy)
	for _, addr := range []netip.Addr{cluster, external} {
		s.frontends = append(s.frontends, netip.AddrPortFrom(addr, 80))
	}
	s.frontends = append(s.frontends, netip.AddrPortFrom(c.Node.Addr(c.f), nodePort))
	return s
}

// change changes the endpoints of each Service and applies that.
func (c *churn) change() {
	c.t.Helper()
	ports := map[proxy.ServicePortName]*proxy.ServicePort{}
	for _, s := range c.services {
		s.endpoints = c.mutate(s.endpoints)
		slice := &policy.Slice{Family: c.f, Endpoints: s.endpoints}
		for _, p := range s.policy.Ports {
			slice.Ports = append(slice.Ports, policy.SlicePort{Name: p.Name, Protocol: p.Protocol, Port: 8080})
		}
		input := policy.Input{Name: proxy.ServiceName{Namespace: "testing", Name: s.name}, Service: &s.policy, Slices: []*policy.Slice{slice}}
		for _, port := range policy.Resolve(input, c.node) {
			ports[port.Name] = port
		}
	}
	c.applied = c.applied.Next(c.node, ports)
	err := c.Node.Do(func() error {
		report, err := c.dataplane.Apply(c.t.Context(), c.applied)
		if err == nil && len(report.SetAside) > 0 {
			err = report.SetAside[0].Err
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// mutate adds, removes or replaces some endpoints. One of them is always local: no policy may leave a client without.
func (c *churn) mutate(before []policy.Endpoint) []policy.Endpoint {
	const most = 12
	after := slices.Clone(before)
	for range 1 + c.random.IntN(4) {
		switch what := c.random.IntN(3); {
		case len(after) == 0 || what == 0 && len(after) < most:
			after = append(after, c.endpoint())
		case what == 1:
			after[c.random.IntN(len(after))] = c.endpoint()
		default:
			i := c.random.IntN(len(after))
			after = slices.Delete(after, i, i+1)
		}
	}
	if !slices.ContainsFunc(after, func(e policy.Endpoint) bool { return e.NodeName == c.node.Name }) {
		after = append(after, c.local())
	}
	return after
}

// endpoint is any pod, one of three on the node.
func (c *churn) endpoint() policy.Endpoint {
	if c.random.IntN(3) == 0 {
		return c.local()
	}
	addr := c.in(fmt.Sprintf("10.1.%d.%d", 128+c.random.IntN(128), 1+c.random.IntN(250)))
	return policy.Endpoint{Addr: addr, NodeName: "elsewhere", Ready: true, Serving: true}
}

func (c *churn) local() policy.Endpoint {
	pod := c.Pods[c.random.IntN(len(c.Pods))]
	return policy.Endpoint{Addr: pod.Addr(c.f), NodeName: c.node.Name, Ready: true, Serving: true}
}

// connect connects to one frontend after the other. A datagram is sent once: if it is lost, no answer comes.
func (c *churn) connect(ctx context.Context, from *lab.Host, protocol proxy.Protocol) {
	for i := 0; ctx.Err() == nil; i++ {
		s := c.services[i%len(c.services)]
		to := s.frontends[i/len(c.services)%len(s.frontends)]
		o := from.Probe(lab.Probe{To: to, Protocol: protocol, Timeout: patience})
		c.connections.Add(1)
		if o.Result != lab.Answered && c.failures.Add(1) <= 10 {
			c.t.Errorf("%s -> %v/%v: %v", from.Name, to, protocol, o)
		}
	}
}

// countUntranslated counts the new connections to frontends that come past translation as they were: a client of TCP hides
// the loss of a packet by sending it again.
func (c *churn) countUntranslated() {
	c.t.Helper()
	ip, addrs := "ip", "10.96.0.0/16, 198.51.100.0/24"
	if c.f == proxy.IPv6 {
		ip, addrs = "ip6", "fd00::0a60:0/112, fd00::c633:6400/120"
	}
	for _, line := range []string{
		"add table inet look",
		"add chain inet look judge",
		"add rule inet look judge ct status dnat return",
		"add rule inet look judge " + ip + " daddr { " + addrs + " } counter",
		"add rule inet look judge th dport 30080-30089 fib daddr type local counter",
		"add chain inet look in { type filter hook input priority -5; }",
		"add chain inet look through { type filter hook forward priority -5; }",
		"add chain inet look out { type filter hook output priority -5; }",
		"add rule inet look in ct state new meta nfproto " + map[string]string{"ip": "ipv4", "ip6": "ipv6"}[ip] + " jump judge",
		"add rule inet look through ct state new jump judge",
		"add rule inet look out ct state new jump judge",
	} {
		run(c.t, c.Lab, "nft", line)
	}
}

var packets = regexp.MustCompile(`counter packets (\d+)`)

// untranslated is how many there were.
func (c *churn) untranslated() int {
	sum := 0
	for _, m := range packets.FindAllStringSubmatch(run(c.t, c.Lab, "nft", "list", "chain", "inet", "look", "judge"), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			c.t.Fatal(err)
		}
		sum += n
	}
	return sum
}
