package config

import (
	"slices"

	"github.com/spf13/pflag"

	"github.com/sluice-proxy/sluice/iptables/xtables"
)

// OwnOptions are the flags that kube-proxy does not have. There is no field for them in its file, so they count beside it.
type OwnOptions struct {
	ManifestDir      string
	ServiceCIDRs     []string
	PriorityServices []string
	IPTablesBackend  string
}

func newOwnOptions() OwnOptions { return OwnOptions{IPTablesBackend: string(xtables.Auto)} }

func (o *OwnOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.ManifestDir, "manifest-dir", o.ManifestDir,
		"Directory of YAML and JSON files with Services and EndpointSlices to serve instead of a cluster. It is watched.")
	fs.StringSliceVar(&o.PriorityServices, "priority-services", o.PriorityServices,
		"Services (namespace/name) that are served first at a start, besides default/kubernetes, kube-system/kube-dns and what is labelled k8s-app=kube-dns.")
	fs.StringSliceVar(&o.ServiceCIDRs, "service-cidrs", o.ServiceCIDRs,
		"Ranges of ClusterIPs, beside those of ServiceCIDR objects. Traffic to an address in them that no Service has goes nowhere.")
	fs.StringVar(&o.IPTablesBackend, "iptables-backend", o.IPTablesBackend,
		"Which iptables to use: nft, legacy, or auto, the one that kubelet and others on this node use.")
}

// checkOwn checks what no other option tells.
func (o *Options) checkOwn(c *checker) {
	if o.Own.ManifestDir != "" && (o.Kube.ClientConnection.Kubeconfig != "" || o.Master != "") {
		c.addFlag("manifest-dir", "serves instead of a cluster, so it excludes --kubeconfig and --master")
	}
	if !slices.Contains([]xtables.Backend{xtables.Auto, xtables.NFT, xtables.Legacy}, xtables.Backend(o.Own.IPTablesBackend)) {
		c.addFlag("iptables-backend", "%q is none of auto, nft, legacy", o.Own.IPTablesBackend)
	}
}
