package iptables

import (
	"hash/fnv"
	"math/bits"
	"strconv"

	"github.com/sluice-proxy/sluice/proxy"
)

// flatPool is how many backends one chain lists. A larger pool has a chain for each group of backends, so
// that a change of one backend rewrites two short chains.
const flatPool = 32

// balancer renders the choice of one backend of a pool: the one that remembers the client, or else any, all
// with the same probability.
type balancer struct {
	sp     *proxy.ServicePort
	pool   proxy.Pool
	shards [][]proxy.Backend // nil for a flat pool
}

func newBalancer(sp *proxy.ServicePort, pool proxy.Pool) balancer {
	b := balancer{sp: sp, pool: pool}
	if backends := sp.Backends(pool); len(backends) > flatPool {
		b.shards = shard(backends)
	}
	return b
}

// rules renders the pool's own rules to the open chain.
func (b balancer) rules(out *chains) {
	backends := b.sp.Backends(b.pool)
	b.remembered(out, backends)
	if b.shards == nil {
		b.spread(out, backends)
		return
	}
	left := len(backends)
	for i, shard := range b.shards {
		if len(shard) > 0 {
			out.rule(chance(len(shard), left), "-j", b.chain(i))
			left -= len(shard)
		}
	}
}

// groups renders the chains that rules jumps to.
func (b balancer) groups(out *chains) {
	for i, shard := range b.shards {
		if len(shard) > 0 {
			out.begin(b.chain(i))
			b.spread(out, shard)
		}
	}
}

// remembered sends clients to the backend that they had less than the affinity's time ago.
func (b balancer) remembered(out *chains, backends []proxy.Backend) {
	if b.sp.Affinity <= 0 {
		return
	}
	limit := strconv.FormatInt(seconds(b.sp.Affinity), 10)
	for _, backend := range backends {
		chain := endpointOf(b.sp, backend)
		out.rule("-m recent --name", chain, "--rcheck --seconds", limit, "--reap", "-j", chain)
	}
}

// spread picks one of the backends.
func (b balancer) spread(out *chains, backends []proxy.Backend) {
	for i, backend := range backends {
		protocol := protocolMatch(b.sp)
		if ownsChain(b.sp, backend) {
			protocol = ""
		}
		out.rule(chance(1, len(backends)-i), protocol, b.target(backend))
	}
}

// picks are the rules that pick one backend of a flat pool, for packets whose protocol is known.
func (b balancer) picks() []string {
	backends := b.sp.Backends(b.pool)
	rules := make([]string, len(backends))
	for i, backend := range backends {
		rules[i] = join(chance(1, len(backends)-i), b.target(backend))
	}
	return rules
}

// target sends a packet to the backend.
func (b balancer) target(backend proxy.Backend) string {
	if ownsChain(b.sp, backend) {
		return "-j " + endpointOf(b.sp, backend)
	}
	return translate(backend)
}

func (b balancer) chain(shard int) string {
	return chainOf(groupChain, b.sp.Name, b.pool.String(), strconv.Itoa(shard))
}

// chance is a match with probability some/all; the kernel keeps 31 bits of it.
func chance(some, all int) string {
	if some == all {
		return ""
	}
	return "-m statistic --mode random --probability " + strconv.FormatFloat(float64(some)/float64(all), 'f', 10, 64)
}

// shard divides backends by a hash of their address, so that a change of one leaves the others where they
// are, into about as many groups as a group has members. Groups may be empty.
func shard(backends []proxy.Backend) [][]proxy.Backend {
	count := 1 << (bits.Len(uint(len(backends))) / 2)
	shards := make([][]proxy.Backend, count)
	for _, backend := range backends {
		h := fnv.New32a()
		addr := backend.Addr.Addr().As16()
		h.Write(addr[:])
		h.Write([]byte{byte(backend.Addr.Port() >> 8), byte(backend.Addr.Port())})
		i := h.Sum32() % uint32(count)
		shards[i] = append(shards[i], backend)
	}
	return shards
}
