package faults

// kernel is what the stories must know of how a mode programs the kernel.
type kernel struct {
	// rules are all that Sluice has there, as text that does not depend on how it came there.
	rules func(*world) (string, error)

	damages []damage

	// litter leaves something among what is Sluice's that does no harm; rules have it as littered.
	litter   func(*story)
	littered string

	// ownPorts keeps a host from using one port for two connections at a time: the kernel may mix up their answers.
	ownPorts bool

	// empty leaves nothing of anybody's, as a boot does. Connection tracking is emptied apart from that.
	empty func(*story)
}

// kernels are those of the modes, as --mode has them.
var kernels = map[string]kernel{
	"iptables": iptablesKernel,
	"nftables": nftablesKernel,
	"ipvs":     ipvsKernel,
}
