package cluster

import (
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

// stories are told one after the other in one world, each with a fresh namespace of the API.
// Sluice runs when a story begins and when it ends.
var stories = []struct {
	name string
	tell func(*story)
}{
	{"ClusterIPServesEveryone", clusterIPServesEveryone},
	{"APIServerIsServed", apiServerIsServed},
	{"NodePortServesEveryone", nodePortServesEveryone},
	{"ExternalIPServesEveryone", externalIPServesEveryone},
	{"LoadBalancerServesEveryone", loadBalancerServesEveryone},
	{"LoadBalancerSourceRangesHold", loadBalancerSourceRangesHold},
	{"ProxyModeAddressesAreLeftAlone", proxyModeAddressesAreLeftAlone},
	{"ProtocolsAreTheirOwnServices", protocolsAreTheirOwnServices},
	{"ServicesOfOthersAreLeftAlone", servicesOfOthersAreLeftAlone},
	{"SingleFamilyServicesServeOne", singleFamilyServicesServeOne},
	{"ExternalPolicyLocalKeepsClients", externalPolicyLocalKeepsClients},
	{"InternalPolicyLocalStaysHome", internalPolicyLocalStaysHome},
	{"AffinityKeepsClientsTogether", affinityKeepsClientsTogether},
	{"HintsFollowTheNodesZone", hintsFollowTheNodesZone},

	{"EndpointsChangeWithoutLoss", endpointsChangeWithoutLoss},
	{"TerminatingEndpointsAreTheLastResort", terminatingEndpointsAreTheLastResort},
	{"ScaleToZeroAndBack", scaleToZeroAndBack},
	{"UDPFlowsFollowTheEndpoints", udpFlowsFollowTheEndpoints},
	{"UDPFlowsMayBeOlderThanTheService", udpFlowsMayBeOlderThanTheService},
	{"SharedAddressHasOneOwner", sharedAddressHasOneOwner},
	{"ChangedTypeTakesItsFrontendsAlong", changedTypeTakesItsFrontendsAlong},
	{"DeletedServiceIsGone", deletedServiceIsGone},
	{"ResentSlicesWriteNothing", resentSlicesWriteNothing},
	{"NewNodeAddressServesNodePorts", newNodeAddressServesNodePorts},

	{"HealthFollowsTheNode", healthFollowsTheNode},
	{"HealthCheckNodePortCountsLocalEndpoints", healthCheckNodePortCountsLocalEndpoints},
	{"EventsSayWhatHappened", eventsSayWhatHappened},
	{"MetricsSayWhatHappened", metricsSayWhatHappened},

	{"RestartLosesNothing", restartLosesNothing},
	{"CrashLosesNothing", crashLosesNothing},
	{"ConnectionsOutliveTheirEndpoint", connectionsOutliveTheirEndpoint},
	{"RestartCatchesUp", restartCatchesUp},
	{"LostAPIServerKeepsTheRules", lostAPIServerKeepsTheRules},
	{"StartWaitsForTheAPIServer", startWaitsForTheAPIServer},
	{"FlushedRulesComeBack", flushedRulesComeBack},
	{"CleanupLeavesNothing", cleanupLeavesNothing},
}

func TestCluster(t *testing.T) {
	for _, mode := range suite.Modes {
		t.Run(mode.Name, func(t *testing.T) {
			w := newWorld(t, mode)
			w.start(t)
			for _, story := range stories {
				t.Run(story.name, func(t *testing.T) { story.tell(newStory(t, w)) })
			}
		})
	}
}
