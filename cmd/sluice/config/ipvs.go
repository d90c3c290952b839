package config

import (
	"regexp"

	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
)

// ipvs is what concerns mode ipvs. In another mode nothing of it can be wrong, as in kube-proxy: files hold odd things in
// sections that nobody reads. If Auto may come to the mode, what cannot be used gives way to the defaults.
func (o *Options) ipvs(c *checker, masqueradeMark uint32) ipvs.Config {
	if string(o.Kube.Mode) == ipvsMode {
		return o.checkIPVS(c, masqueradeMark)
	}
	scratch := &checker{file: c.file}
	cfg := o.checkIPVS(scratch, masqueradeMark)
	if scratch.err() != nil {
		return ipvs.Config{RouteMark: spareRouteMark(masqueradeMark)}
	}
	return cfg
}

var schedulerName = regexp.MustCompile(`^[a-z]{0,15}$`)

func (o *Options) checkIPVS(c *checker, masqueradeMark uint32) ipvs.Config {
	k, own := o.Kube.IPVS, o.Own.IPVS
	if !schedulerName.MatchString(k.Scheduler) {
		c.add("ipvs.scheduler", "%q cannot be a scheduler of IPVS", k.Scheduler)
	}
	if own.DrainLimit <= 0 {
		c.addFlag("ipvs-drain-limit", "%v is not positive", own.DrainLimit)
	}
	compat := ipvs.Compat(own.CompatInterface)
	if compat != ipvs.CompatAuto && compat != ipvs.CompatOn && compat != ipvs.CompatOff {
		c.addFlag("ipvs-compat-interface", "%q is none of auto, on, off", own.CompatInterface)
	}
	return ipvs.Config{
		Scheduler:  k.Scheduler,
		Exclude:    prefixes(k.ExcludeCIDRs, func(format string, args ...any) { c.add("ipvs.excludeCIDRs", format, args...) }),
		DrainLimit: own.DrainLimit,
		RouteMark:  routeMark(c, own.RouteBit, masqueradeMark),
		Timeouts: kernel.Timeouts{
			TCP:    atLeastZero(c, "ipvs.tcpTimeout", k.TCPTimeout.Duration),
			TCPFin: atLeastZero(c, "ipvs.tcpFinTimeout", k.TCPFinTimeout.Duration),
			UDP:    atLeastZero(c, "ipvs.udpTimeout", k.UDPTimeout.Duration),
		},
		CompatInterface: compat,
	}
}

// kubernetesMarks are the bits that kubelet and others use.
const kubernetesMarks = 1<<14 | 1<<15

// routeMark keeps the bit apart from those that mean something else.
func routeMark(c *checker, bit int, masqueradeMark uint32) uint32 {
	if bit < 0 || bit > 31 {
		c.addFlag("ipvs-route-bit", "%d is not between 0 and 31", bit)
		return 0
	}
	mark := uint32(1) << bit
	if mark&(masqueradeMark|kubernetesMarks) != 0 {
		c.addFlag("ipvs-route-bit", "%d has another meaning: 14 and 15 are Kubernetes', and the mark %#x asks for masquerading", bit, masqueradeMark)
	}
	return mark
}

// spareRouteMark is a bit that does not ask for masquerading.
func spareRouteMark(masqueradeMark uint32) uint32 {
	if masqueradeMark == ipvs.DefaultRouteMark {
		return ipvs.DefaultRouteMark >> 1
	}
	return ipvs.DefaultRouteMark
}
