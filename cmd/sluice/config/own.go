package config

import (
	"math/bits"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/ipvs"
)

// OwnOptions are the flags that kube-proxy does not have. There is no field for them in its file, so they count beside it.
type OwnOptions struct {
	ManifestDir      string
	ServiceCIDRs     []string
	PriorityServices []string
	IPTablesBackend  string
	StatusPage       string
	AuditInterval    time.Duration
	IPVS             OwnIPVS
}

// OwnIPVS are those for mode ipvs.
type OwnIPVS struct {
	DrainLimit      time.Duration
	RouteBit        int
	CompatInterface string
}

// defaultAuditInterval bounds how long harm lasts of which the kernel tells nobody.
const defaultAuditInterval = 10 * time.Minute

func newOwnOptions() OwnOptions {
	return OwnOptions{
		IPTablesBackend: string(xtables.Auto),
		StatusPage:      string(StatusOn),
		AuditInterval:   defaultAuditInterval,
		IPVS: OwnIPVS{
			DrainLimit:      ipvs.DefaultDrainLimit,
			RouteBit:        bits.TrailingZeros32(ipvs.DefaultRouteMark),
			CompatInterface: string(ipvs.CompatAuto),
		},
	}
}

func (o *OwnOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.ManifestDir, "manifest-dir", o.ManifestDir,
		"Directory of YAML and JSON files with Services and EndpointSlices to serve instead of a cluster. It is watched.")
	fs.StringSliceVar(&o.PriorityServices, "priority-services", o.PriorityServices,
		"Services (namespace/name) that are served first at a start, besides default/kubernetes, kube-system/kube-dns and what is labelled k8s-app=kube-dns.")
	fs.StringSliceVar(&o.ServiceCIDRs, "service-cidrs", o.ServiceCIDRs,
		"Ranges of ClusterIPs, beside those of ServiceCIDR objects. Traffic to an address in them that no Service has goes nowhere.")
	fs.StringVar(&o.IPTablesBackend, "iptables-backend", o.IPTablesBackend,
		"Which iptables to use: nft, legacy, or auto, the one that kubelet and others on this node use.")
	fs.StringVar(&o.StatusPage, "status-page", o.StatusPage,
		"Who gets a page with all Services and their addresses at /status/ of the metrics address: on (who gets metrics), local (clients on this node), off.")
	fs.DurationVar(&o.AuditInterval, "kernel-audit-interval", o.AuditInterval,
		"How often everything in the kernel is compared with what should be there, whether there is a reason to or not. What differs is named in the log and mended. 0 is never.")
	i := &o.IPVS
	fs.DurationVar(&i.DrainLimit, "ipvs-drain-limit", i.DrainLimit, "How long a backend that is gone keeps its connections in mode ipvs, at most.")
	fs.IntVar(&i.RouteBit, "ipvs-route-bit", i.RouteBit, "Bit of the packet mark (0 to 31) that leads packets to IPVS in mode ipvs.")
	fs.StringVar(&i.CompatInterface, "ipvs-compat-interface", i.CompatInterface,
		"Whether mode ipvs makes an interface kube-ipvs0 without addresses, by which Calico knows that there is IPVS: on, off, or auto, where it finds Calico.")
}

// StatusPage says who gets the status page.
type StatusPage string

// The values of StatusPage.
const (
	StatusOn    StatusPage = "on"    // whoever gets metrics
	StatusLocal StatusPage = "local" // clients on a loopback address
	StatusOff   StatusPage = "off"
)

// checkOwn checks what no other option tells.
func (o *Options) checkOwn(c *checker) {
	if o.Own.ManifestDir != "" && (o.Kube.ClientConnection.Kubeconfig != "" || o.Master != "") {
		c.addFlag("manifest-dir", "serves instead of a cluster, so it excludes --kubeconfig and --master")
	}
	if !slices.Contains([]StatusPage{StatusOn, StatusLocal, StatusOff}, StatusPage(o.Own.StatusPage)) {
		c.addFlag("status-page", "%q is none of on, local, off", o.Own.StatusPage)
	}
	if !slices.Contains([]xtables.Backend{xtables.Auto, xtables.NFT, xtables.Legacy}, xtables.Backend(o.Own.IPTablesBackend)) {
		c.addFlag("iptables-backend", "%q is none of auto, nft, legacy", o.Own.IPTablesBackend)
	}
	if o.Own.AuditInterval < 0 {
		c.addFlag("kernel-audit-interval", "%v is less than 0", o.Own.AuditInterval)
	}
}
