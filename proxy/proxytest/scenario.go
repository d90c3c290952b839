package proxytest

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-proxy/sluice/proxy"
)

// Scenario is a story in steps. All its addresses are those of the lab's plan in IPv4; Run
// translates them for IPv6.
type Scenario struct {
	Name  string
	Rules []string // of docs/rules.md, e.g. "R84"

	// Families that it is played in; nil is both.
	Families []proxy.Family

	// Node is the node's configuration at the start.
	Node Node

	// Local are addresses that the node has on its loopback interface besides those of the lab.
	Local []string

	// Firewall sets the policies of the node's INPUT and FORWARD to drop what nobody accepts, but for
	// established connections to the node. It is played only by modes that open firewalls.
	Firewall bool

	// NoExternalIPs ignores spec.externalIPs.
	NoExternalIPs bool

	Steps []Step
}

// Step changes objects, or the node, and then sends packets.
type Step struct {
	Name   string
	Set    []runtime.Object // Services and EndpointSlices, added or replaced
	Delete []runtime.Object
	Node   *Node    // the node's new configuration
	Local  []string // the node's new addresses besides those of the lab; nil leaves them

	// Restart forgets everything but the objects and the kernel, as a new process would.
	Restart bool

	// Packets has a line each; parsePacket says how they read. Lines that name a connection come
	// in order, the others in none.
	Packets string

	// Random packets are sent as well, to all that is there; of each is wanted what package explain says.
	Random *Random
}

// Node is the configuration and the facts of the node under test. The zero value detects pods by
// ClusterCIDR, serves NodePorts on all addresses, and knows lab.ServiceCIDR.
type Node struct {
	Detect            Detect
	NodePortAddresses []string // as of --nodeport-addresses
	NoLocalhost       bool     // --iptables-localhost-nodeports=false
	MasqueradeAll     bool
	Zone              string
	NoServiceCIDR     bool
	NoAddress         bool // the Node object has no address of the scenario's family
}

// Detect is a way to recognise the traffic of pods.
type Detect uint8

// The ways. Only ByBridge puts the pods on a bridge.
const (
	ByClusterCIDR Detect = iota
	ByNodeCIDR
	ByBridge
	ByInterfacePrefix
	Undetected
)

// in tells whether the scenario is played in a family.
func (s *Scenario) in(f proxy.Family) bool {
	return s.Families == nil || slices.Contains(s.Families, f)
}

// Scenarios are all scenarios. The objects in them must not be changed.
func Scenarios() []Scenario {
	return slices.Concat(
		clusterIPScenarios(),
		nodePortScenarios(),
		externalScenarios(),
		sourceRangeScenarios(),
		policyScenarios(),
		matrixScenarios(),
		endpointScenarios(),
		affinityScenarios(),
		refusalScenarios(),
		masqueradeScenarios(),
		objectScenarios(),
		changeScenarios(),
		flipScenarios(),
		flowScenarios(),
		sizeScenarios(),
	)
}
