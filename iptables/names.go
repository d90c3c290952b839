package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"strconv"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
)

// The two tables, in the order in which a first load writes them.
const (
	nat    = "nat"
	filter = "filter"
)

// The chains that exist once. All but markChain are ours alone.
const (
	servicesChain    = xtables.DefaultPrefix + "SERVICES"
	postroutingChain = xtables.DefaultPrefix + "POSTROUTING"
	refuseChain      = xtables.DefaultPrefix + "REFUSE"
	clusterIPsChain  = xtables.DefaultPrefix + "CLUSTER-IPS"
	nodePortsChain   = xtables.DefaultPrefix + "NODEPORTS"
	healthChain      = xtables.DefaultPrefix + "HEALTH"
	forwardChain     = xtables.DefaultPrefix + "FORWARD"
	firewallChain    = xtables.DefaultPrefix + "FIREWALL"

	// Other programs jump here to have a packet masqueraded, so the name is not ours to choose.
	markChain = xtables.SharedChain
)

// The chains of ServicePorts, each followed by a hash. A name stands for one task: where a large change
// takes several commits, rules of the old state lead to chains of the new one for a moment.
const (
	serviceChain  = xtables.DefaultPrefix + "SVC-" // all of a ServicePort that has one route to one pool
	clusterChain  = xtables.DefaultPrefix + "CLU-" // cluster pool
	localChain    = xtables.DefaultPrefix + "LOC-" // local pool
	sourcesChain  = xtables.DefaultPrefix + "FW-"  // loadBalancerSourceRanges
	groupChain    = xtables.DefaultPrefix + "GRP-" // some backends of a large pool
	endpointChain = xtables.DefaultPrefix + "SEP-" // one backend
)

// routeChains are the chains that tell classes of sources apart, by the lowest kind of the frontends
// that enter them.
var routeChains = [...]string{
	proxy.ClusterIP:      xtables.DefaultPrefix + "INT-",
	proxy.LoadBalancerIP: xtables.DefaultPrefix + "LBI-",
	proxy.ExternalIP:     xtables.DefaultPrefix + "EXT-",
	proxy.NodePort:       xtables.DefaultPrefix + "NPT-",
}

// maxChainName is one less than both backends accept: a trial makes names longer by a letter.
const maxChainName = 27

// chainOf names a chain of a ServicePort. Detail tells those of the same kind apart.
func chainOf(kind string, name proxy.ServicePortName, detail ...string) string {
	return kind + hash(append([]string{name.Namespace, name.Name, name.Port, name.Protocol.String()}, detail...)...)
}

// ordinal is the detail of the i-th chain of a kind; nearly always there is but one.
func ordinal(i int) []string {
	if i == 0 {
		return nil
	}
	return []string{strconv.Itoa(i)}
}

// hash is 80 bits of text, enough that no two of a million names are ever alike.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	var sum [sha256.Size]byte
	return base32.StdEncoding.EncodeToString(h.Sum(sum[:0])[:10])
}

// maxComment keeps a comment within what both backends and the kernel's rule annotations hold.
const maxComment = 240

// comment is a match that always fits and carries text. What a comment cannot hold becomes "_".
func comment(text string) string {
	return `-m comment --comment "` + proxy.Comment(text, maxComment) + `"`
}
