package explain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/explain"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func node() *proxy.Node {
	return &proxy.Node{
		Family: proxy.IPv4, Name: "here", IP: addr("192.168.0.2"), Addrs: []netip.Addr{addr("127.0.0.1"), addr("192.168.0.2")},
		NodePorts:    proxy.NodePortAddrs{All: true},
		PodSource:    proxy.PodSource{Kind: proxy.PodSourcePrefix, Prefix: netip.MustParsePrefix("10.1.0.0/16")},
		ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	}
}

// web is a Service under externalTrafficPolicy Local with an endpoint here, one elsewhere, and one that is not ready.
func web() policy.Input {
	return policy.Input{
		Name: proxy.ServiceName{Namespace: "default", Name: "web"},
		Service: &policy.Service{
			Ports:           []policy.Port{{Name: "http", Protocol: proxy.TCP, Port: 80, NodePort: 30080}},
			ClusterIPs:      [2]netip.Addr{proxy.IPv4: addr("10.96.0.10")},
			LoadBalancerIPs: []netip.Addr{addr("203.0.113.1")},
			SourceRanges:    []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("10.1.0.0/16")},
			ExternalLocal:   true,
		},
		Slices: []*policy.Slice{{
			Ports: []policy.SlicePort{{Name: "http", Protocol: proxy.TCP, Port: 8080}},
			Endpoints: []policy.Endpoint{
				{Addr: addr("10.1.0.1"), NodeName: "here", Ready: true, Serving: true},
				{Addr: addr("10.1.9.2"), NodeName: "there", Ready: true, Serving: true},
				{Addr: addr("10.1.9.3"), NodeName: "there"},
			},
		}},
	}
}

func view(n *proxy.Node) explain.View {
	in := web()
	return explain.View{Snapshot: desired.Build(n, []policy.Input{in}), Relay: true, Input: func(proxy.ServiceName) policy.Input { return in }}
}

func packet(from, through, to string) explain.Packet {
	return explain.Packet{From: addr(from), Interface: through, To: netip.MustParseAddrPort(to), Protocol: proxy.TCP}
}

func TestTextNamesEveryReason(t *testing.T) {
	byInterface := node()
	byInterface.PodSource = proxy.PodSource{Kind: proxy.PodSourceInterfacePrefix, Interface: "veth"}
	undetected := node()
	undetected.PodSource = proxy.PodSource{}
	relayed := node()
	relayed.NodePorts.Relayed = true // and somebody relays, see view
	tests := []struct {
		name   string
		node   *proxy.Node
		packet explain.Packet
		want   []string
	}{
		{"from a pod to a cluster IP", node(), packet("10.1.0.7", "", "10.96.0.10:80"), []string{
			"packet      10.1.0.7 -> 10.96.0.10:80/tcp",
			"source      pod: 10.1.0.7 is in the range of pods, 10.1.0.0/16",
			"frontend    10.96.0.10:80/tcp, cluster IP of default/web:http",
			"fate        forwarded: to all endpoints",
			"masquerade  no: it comes from a pod",
			"affinity    none",
			"10.1.0.1:8080  here   yes   ready",
			"10.1.9.3:8080  there  no    not ready",
		}},
		{"from the backend itself", node(), packet("10.1.0.1", "", "10.96.0.10:80"), []string{
			"10.1.0.1:8080  here   yes   ready; it is the client itself, so it sees an address of the node",
		}},
		{"from the node", node(), packet("192.168.0.2", "", "10.96.0.10:80"), []string{
			"source      node: the node has the address 192.168.0.2", "masquerade  yes",
		}},
		{"from outside to a NodePort", node(), packet("198.51.100.7", "", "192.168.0.2:30080"), []string{
			"source      outside: 198.51.100.7 is not in the range of pods, 10.1.0.0/16, and the node does not have the address",
			"frontend    port 30080 of the node/tcp, node port of default/web:http",
			"fate        forwarded: the traffic policy is Local: to the endpoints on this node",
			"masquerade  no: the traffic policy is Local",
			"10.1.9.2:8080  there  no    on node there",
		}},
		{"from a pod to a load balancer", node(), packet("10.1.0.7", "", "203.0.113.1:80"), []string{
			"for 10.1.0.0/16, 198.51.100.0/24 alone", "externalTrafficPolicy Local does not concern pods",
		}},
		{"not allowed", node(), packet("192.0.2.1", "", "203.0.113.1:80"), []string{
			"fate      dropped: 192.0.2.1 is in none of loadBalancerSourceRanges",
		}},
		{"unknown port", node(), packet("10.1.0.7", "", "10.96.0.10:81"), []string{
			"fate    rejected: 10.96.0.10 is the cluster IP of default/web, which has no such port",
		}},
		{"unallocated", node(), packet("10.1.0.7", "", "10.96.0.11:80"), []string{
			"fate    dropped: no Service has 10.96.0.11, which is in the range of cluster IPs, 10.96.0.0/16",
		}},
		{"nobody's", node(), packet("10.1.0.7", "", "192.168.0.3:30080"), []string{"fate    ignored: no Service has such an address and port"}},
		{"interface of a pod", byInterface, packet("10.1.0.7", "veth12", "10.96.0.10:80"), []string{
			"packet      10.1.0.7%veth12 -> ", "source      pod: it comes in through veth12, and the interfaces of pods are veth*",
		}},
		{"no interface", byInterface, packet("10.1.0.7", "", "10.96.0.10:80"), []string{
			"source      outside: it comes in through no interface that was named, and the interfaces of pods are veth*",
		}},
		{"pods are not known", undetected, packet("10.1.0.7", "", "10.96.0.10:80"), []string{
			"source      outside: this node cannot tell pods from others", "masquerade  no: this node cannot tell pods from others",
		}},
		{"relayed", relayed, packet("127.0.0.1", "", "127.0.0.1:30080"), []string{"fate        forwarded", "source      node"}},
		{"localhost is a host's own", node(), packet("198.51.100.7", "", "127.0.0.1:30080"), []string{"fate    dropped: 127.0.0.1 is a host's own"}},
		{"localhost is not served", node(), packet("127.0.0.1", "", "127.0.0.1:30080"), []string{
			"fate    ignored: port 30080 is a node port of default/web:http, but 127.0.0.1 serves no node ports",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := explain.WriteText(&b, view(tt.node).Packet(tt.packet)); err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(b.String(), want) {
					t.Errorf("no %q in\n%s", want, b.String())
				}
			}
		})
	}
}

func TestServiceWithoutEndpointsHere(t *testing.T) {
	n := node()
	n.Name = "third"
	v := view(n)
	a := v.Packet(packet("198.51.100.7", "", "192.168.0.2:30080"))
	if a.Fate != explain.Dropped || len(a.Candidates) != 3 || a.Candidates[0].Pools[a.Pool].Why != "on node here" {
		t.Errorf("%+v", a)
	}
}

func TestSetAsideIsNotServed(t *testing.T) {
	v := view(node())
	name := proxy.ServicePortName{Namespace: "default", Name: "web", Port: "http", Protocol: proxy.TCP}
	v.SetAside = []proxy.SetAside{{Name: name, Err: errors.New("no such set")}}
	if a := v.Packet(packet("10.1.0.7", "", "10.96.0.10:80")); a.Fate != explain.Ignored || !strings.Contains(a.Why, "no such set") {
		t.Errorf("%+v", a)
	}
	var b bytes.Buffer
	if err := explain.WriteService(&b, v.Service(name.Service())); err != nil || !strings.Contains(b.String(), "no such set") {
		t.Errorf("%v: %s", err, b.String())
	}
}

func TestServiceShowsAllItsFrontends(t *testing.T) {
	ports := view(node()).Service(proxy.ServiceName{Namespace: "default", Name: "web"})
	var b bytes.Buffer
	if err := explain.WriteService(&b, ports); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"default/web:http, tcp",
		"10.96.0.10:80   cluster IP        cluster    cluster, masqueraded  cluster, masqueraded",
		"203.0.113.1:80  load balancer IP  cluster    cluster, masqueraded  local",
		"0.0.0.0:30080   node port         cluster    cluster, masqueraded  local",
		"10.1.9.2:8080  there  yes: ready     no: on node there",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if got := view(node()).Service(proxy.ServiceName{Namespace: "default", Name: "we"}); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestJSONCanBeRead(t *testing.T) {
	var b bytes.Buffer
	if err := explain.WriteJSON(&b, view(node()).Packet(packet("10.1.0.7", "", "10.96.0.10:80"))); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Source, Fate struct{ Is, Why string }
		Service      string
		Endpoints    []struct {
			Address string
			Used    bool
		}
	}
	if err := json.Unmarshal(b.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Source.Is != "pod" || answer.Fate.Is != "forwarded" || answer.Service != "default/web:http" || len(answer.Endpoints) != 3 ||
		!answer.Endpoints[0].Used || answer.Endpoints[2].Used {
		t.Errorf("%s", b.String())
	}
	b.Reset()
	if err := explain.WriteServiceJSON(&b, view(node()).Service(proxy.ServiceName{Namespace: "default", Name: "web"})); err != nil {
		t.Fatal(err)
	}
	var ports []struct {
		Service   string
		Frontends []struct {
			Routes map[string]struct{ Verdict, Pool string }
		}
		Endpoints []struct {
			Pools map[string]struct{ Used bool }
		}
	}
	if err := json.Unmarshal(b.Bytes(), &ports); err != nil {
		t.Fatal(err)
	}
	if len(ports) != 1 || len(ports[0].Frontends) != 3 || ports[0].Frontends[2].Routes["outside"].Pool != "local" || !ports[0].Endpoints[0].Pools["local"].Used {
		t.Errorf("%s", b.String())
	}
}

func BenchmarkPacket(b *testing.B) {
	var inputs []policy.Input
	for i := range 10_000 {
		in := web()
		in.Name.Name += netip.AddrFrom4([4]byte{0, 0, byte(i >> 8), byte(i)}).String()
		svc := *in.Service
		svc.ClusterIPs[proxy.IPv4] = netip.AddrFrom4([4]byte{10, 97, byte(i >> 8), byte(i)})
		svc.LoadBalancerIPs, svc.Ports = nil, []policy.Port{{Name: "http", Protocol: proxy.TCP, Port: 80}}
		in.Service = &svc
		inputs = append(inputs, in)
	}
	v := explain.View{Snapshot: desired.Build(node(), inputs), Input: func(proxy.ServiceName) policy.Input { return inputs[0] }}
	for b.Loop() {
		if a := v.Packet(packet("10.1.0.7", "", "10.97.39.15:80")); a.Fate != explain.Forwarded {
			b.Fatalf("%+v", a)
		}
	}
}
