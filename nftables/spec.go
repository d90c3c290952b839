package nftables

import (
	"fmt"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// spec says what a chain does of which there are several: one for each number of backends that occurs, with the variants
// that occur, or one for each timeout of affinity. The zero value is no chain.
type spec struct {
	backends int

	nodePort bool // by protocol and port alone
	sticky   bool // a client's last backend first
	pool     proxy.Pool
	masq     masquerade

	timeout int64 // seconds, of a chain that remembers clients; the rest is zero then
}

// masquerade says whose connections are masqueraded.
type masquerade uint8

const (
	nobody masquerade = iota
	everybody
	allButPods
)

// specOfTimeout is the chain that remembers clients for that long, in whole seconds: not less.
func specOfTimeout(d time.Duration) spec {
	return spec{timeout: int64((d + time.Second - 1) / time.Second)}
}

// name is what the chain is called.
func (s spec) name() string {
	if s.timeout > 0 {
		return "learn-" + strconv.FormatInt(s.timeout, 10)
	}
	name := "lb-"
	if s.sticky {
		name = "sticky-lb-"
	}
	if s.nodePort {
		name = "node-port-" + name
	}
	name += strconv.Itoa(s.backends)
	if s.pool == proxy.LocalPool {
		name += "-local"
	}
	return name + [...]string{nobody: "", everybody: "-masq", allButPods: "-masq-but-pods"}[s.masq]
}

// localSlots is the number of the first slot of the local pool. That of the other is 0.
const localSlots = 0x4000_0000

// slot is the class of the i-th slot of a pool.
func slot(pool proxy.Pool, i int) string {
	class := uint32(i)
	if pool == proxy.LocalPool {
		class += localSlots
	}
	return string(nft.AppendClass(nil, class))
}

// chain renders the chain of a spec.
func (w writer) chain(s spec) nft.Chain {
	if s.timeout > 0 {
		return nft.Chain{Name: s.name(), Rules: []string{w.remember(s.timeout)}}
	}
	c := nft.Chain{Name: s.name()}
	add := func(rule string) { c.Rules = append(c.Rules, rule) }
	switch {
	case s.masq == everybody || s.masq == allButPods && w.pod == "":
		add(w.setMark())
	case s.masq == allButPods:
		add(nft.MatchPods(w.node.Family, w.node.PodSource, true) + " " + w.setMark())
	}
	if s.sticky {
		for _, rule := range w.recall(s) {
			add(rule)
		}
	}
	key, in := w.frontend, endpoints
	if s.nodePort {
		key, in = nodePortKey, nodePortEndpoints
	}
	translate := "dnat " + w.ip + " to " + key + " . meta priority map @" + in.Name
	if s.backends > 1 {
		random := "meta priority set numgen random mod " + strconv.Itoa(s.backends)
		if s.pool == proxy.LocalPool {
			random += " offset " + strconv.Itoa(localSlots)
		}
		add(random)
		add(translate)
	}
	// While a transaction is committed the slot may be gone already; the first one is there as long as any is.
	add("meta priority set " + slot(s.pool, 0))
	add(translate)
	return c
}

// recall sends a client to its last backend if the pool has it. If not, the client is forgotten: what packets add never
// replaces an element that is there.
func (w writer) recall(s spec) []string {
	key, numbers, backends := w.frontend, stickyServices, stickyBackends
	if s.nodePort {
		key, numbers = nodePortKey, stickyNodePorts
	}
	if s.pool == proxy.LocalPool {
		backends = stickyLocalBackends
	}
	return []string{
		noClass,
		"meta priority set " + key + " map @" + numbers.Name,
		"meta priority set meta priority . " + w.ip + " saddr map @" + affinity.Name,
		transport + "dnat " + w.ip + " to meta priority map @" + backends.Name,
		"jump " + forget,
	}
}

// forget is the rule that removes a client. Without the data the kernel does not take it.
func (w writer) forget() string {
	return "delete @" + affinity.Name + " { meta priority & 0xffff0000 . " + w.ip + " saddr : meta priority }"
}

// remember notes the client of a packet that has got a backend.
func (w writer) remember(seconds int64) string {
	return fmt.Sprintf("update @%s { meta priority & 0xffff0000 . ct original %s saddr timeout %ds : meta priority }",
		affinity.Name, w.ip, seconds)
}
