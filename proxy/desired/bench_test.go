package desired_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// cluster has 30,000 Services of 10 endpoints.
func cluster() []policy.Input {
	inputs := make([]policy.Input, 30_000)
	for i := range inputs {
		inputs[i] = input(fmt.Sprintf("svc-%d", i), netip.AddrFrom4([4]byte{172, 30, byte(i >> 8), byte(i)}).String())
		inputs[i].Slices = tenEndpoints(i)
	}
	return inputs
}

func tenEndpoints(i int) []*policy.Slice {
	list := slicesOf("10.0.0.1")
	list[0].Endpoints = nil
	for j := range 10 {
		list[0].Endpoints = append(list[0].Endpoints, policy.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), NodeName: "there", Ready: true, Serving: true,
		})
	}
	return list
}

func BenchmarkBuild(b *testing.B) {
	inputs, n := cluster(), node()
	b.ReportAllocs()
	for b.Loop() {
		desired.Build(n, inputs)
	}
}

// One Service changes, and a snapshot is made.
func BenchmarkUpdateOne(b *testing.B) {
	inputs := cluster()
	builder := desired.NewBuilder(node())
	builder.Update(inputs)
	builder.Snapshot()
	variants := [2]policy.Input{inputs[7], inputs[7]}
	variants[1].Slices = tenEndpoints(8)
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		builder.Update(variants[i%2 : i%2+1])
		builder.Snapshot()
	}
}

func BenchmarkSetNode(b *testing.B) {
	builder := desired.NewBuilder(node())
	builder.Update(cluster())
	builder.Snapshot()
	nodes := [2]*proxy.Node{node(), node(func(n *proxy.Node) { n.MasqueradeAll = true })}
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		builder.SetNode(nodes[i%2])
		builder.Snapshot()
	}
}

func TestLargeClusterIsBuiltWhole(t *testing.T) {
	s := desired.Build(node(), cluster())
	if s.Len() != 30_000 {
		t.Errorf("%d ServicePorts, want 30,000", s.Len())
	}
}
