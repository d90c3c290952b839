package config

import (
	"strings"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
)

// AddFlags makes a flag for each option, but for those of AddLogFlags. The flags must be parsed before Complete.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.flags = fs
	o.addRunFlags(fs)
	o.addSourceFlags(fs)
	o.addNodeFlags(fs)
	o.addIPTablesFlags(fs)
	o.addIPVSFlags(fs)
	o.addServerFlags(fs)
	o.addConntrackFlags(fs)
	o.Own.addFlags(fs)
}

func (o *Options) addRunFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.ConfigFile, "config", o.ConfigFile,
		"File with a KubeProxyConfiguration. Flags that have a field in it do not count then, but for --hostname-override and what is about logging.")
	fs.StringVar(&o.WriteConfigTo, "write-config-to", o.WriteConfigTo, "Write the configuration, with its defaults, to this file, and exit.")
	fs.BoolVar(&o.Cleanup, "cleanup", o.Cleanup, "Remove everything that Sluice has put into the kernel, and exit. The same as sluice cleanup.")
	fs.BoolVar(&o.InitOnly, "init-only", o.InitOnly,
		"Set the kernel parameters, check that the mode can work, and exit. A second start then needs no more than CAP_NET_ADMIN, "+
			"and CAP_NET_RAW for the legacy iptables backend.")
	fs.Var(cliflag.NewMapStringBool(&o.Kube.FeatureGates), "feature-gates",
		"Pairs of gate and true or false. AllowServiceExternalIPs (default true) decides whether spec.externalIPs is served. "+
			"The other gates of kube-proxy are accepted and change nothing, but for those about logging.")
	fs.Int32Var(o.Kube.OOMScoreAdj, "oom-score-adj", *o.Kube.OOMScoreAdj, "oom_score_adj of this process, -1000 to 1000.")
	fs.StringVar(&o.bootIDFile, "boot-id-file", "", "Has no effect.")
	fs.StringVar(&o.machineID, "machine-id-file", "", "Has no effect.")
}

func (o *Options) addSourceFlags(fs *pflag.FlagSet) {
	c := &o.Kube.ClientConnection
	fs.StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig,
		"File that says how to reach the API server. Without it and --master the pod's service account is used, with "+
			"KUBERNETES_SERVICE_HOST, which must then be an address that works without Services.")
	fs.StringVar(&o.Master, "master", o.Master, "URL of the API server; overrides the kubeconfig.")
	fs.StringVar(&c.ContentType, "kube-api-content-type", c.ContentType, "Encoding of requests to the API server.")
	fs.Float32Var(&c.QPS, "kube-api-qps", c.QPS, "Requests a second to the API server.")
	fs.Int32Var(&c.Burst, "kube-api-burst", c.Burst, "Requests to the API server that may come at once.")
	fs.DurationVar(&o.Kube.ConfigSyncPeriod.Duration, "config-sync-period", o.Kube.ConfigSyncPeriod.Duration,
		"How often everything that is known of the cluster is looked through again.")
}

func (o *Options) addNodeFlags(fs *pflag.FlagSet) {
	k := o.Kube
	fs.StringVar(&o.HostnameOverride, "hostname-override", o.HostnameOverride,
		"Name of this Node, if it is not the host name. With a wrong name no endpoint is local.")
	fs.StringVar((*string)(&k.Mode), "mode", Auto,
		"How Services reach the kernel: "+strings.Join(o.modes, ", ")+". auto is the first of the others that this node can run. Also --proxy-mode.")
	fs.StringVar(&k.ClusterCIDR, "cluster-cidr", k.ClusterCIDR,
		"Addresses of pods: a CIDR, or one for each IP family. It tells traffic of pods from other traffic, which is masqueraded on its way to a ClusterIP.")
	fs.StringVar((*string)(&k.DetectLocalMode), "detect-local-mode", string(k.DetectLocalMode),
		"How traffic of pods is told from other traffic: ClusterCIDR (the default), NodeCIDR, BridgeInterface, InterfaceNamePrefix.")
	fs.StringVar(&k.DetectLocal.BridgeInterface, "pod-bridge-interface", k.DetectLocal.BridgeInterface,
		"Bridge that all pods of the node are attached to, for --detect-local-mode BridgeInterface.")
	fs.StringVar(&k.DetectLocal.InterfaceNamePrefix, "pod-interface-name-prefix", k.DetectLocal.InterfaceNamePrefix,
		"How the names of all interfaces of pods begin, for --detect-local-mode InterfaceNamePrefix.")
	fs.StringSliceVar(&k.NodePortAddresses, "nodeport-addresses", k.NodePortAddresses,
		"Addresses of the node that serve NodePorts: CIDRs, primary (the node's own IPs), localhost, all. Changes of addresses are followed. "+
			"Empty is all or, if the mode is nftables by name, primary.")
	fs.BoolVar(&k.IPTables.MasqueradeAll, "masquerade-all", k.IPTables.MasqueradeAll, "Masquerade everything that is sent to a ClusterIP.")
}

func (o *Options) addIPTablesFlags(fs *pflag.FlagSet) {
	i := &o.Kube.IPTables
	fs.Int32Var(i.MasqueradeBit, "iptables-masquerade-bit", *i.MasqueradeBit, "Bit of the packet mark (0 to 31) that asks for masquerading, in every mode.")
	fs.BoolVar(i.LocalhostNodePorts, "iptables-localhost-nodeports", *i.LocalhostNodePorts,
		"Serve NodePorts on 127.0.0.1, too, if --nodeport-addresses includes it. Sets net.ipv4.conf.all.route_localnet.")
	fs.DurationVar(&i.SyncPeriod.Duration, "iptables-sync-period", i.SyncPeriod.Duration,
		"Half the time after which a change that has not reached the kernel makes the node unhealthy, in every mode but ipvs.")
	fs.DurationVar(&i.MinSyncPeriod.Duration, "iptables-min-sync-period", i.MinSyncPeriod.Duration,
		"Least time between a change of the rules and the next, in every mode but ipvs. The first change after a pause is never delayed.")
}

func (o *Options) addIPVSFlags(fs *pflag.FlagSet) {
	i := &o.Kube.IPVS
	fs.DurationVar(&i.SyncPeriod.Duration, "ipvs-sync-period", i.SyncPeriod.Duration, "As --iptables-sync-period, for mode ipvs.")
	fs.DurationVar(&i.MinSyncPeriod.Duration, "ipvs-min-sync-period", i.MinSyncPeriod.Duration, "As --iptables-min-sync-period, for mode ipvs.")
	fs.StringVar(&i.Scheduler, "ipvs-scheduler", i.Scheduler, "How mode ipvs picks a backend; rr if empty.")
	fs.StringSliceVar(&i.ExcludeCIDRs, "ipvs-exclude-cidrs", i.ExcludeCIDRs, "Ranges of addresses whose virtual servers mode ipvs never touches.")
	fs.BoolVar(&i.StrictARP, "ipvs-strict-arp", i.StrictARP, "Has no effect: no address of a Service is on an interface, so nobody answers ARP for it.")
	fs.DurationVar(&i.TCPTimeout.Duration, "ipvs-tcp-timeout", i.TCPTimeout.Duration, "Idle time after which mode ipvs forgets TCP connections; 0 leaves it as it is.")
	fs.DurationVar(&i.TCPFinTimeout.Duration, "ipvs-tcpfin-timeout", i.TCPFinTimeout.Duration, "The same after a FIN.")
	fs.DurationVar(&i.UDPTimeout.Duration, "ipvs-udp-timeout", i.UDPTimeout.Duration, "The same for UDP flows.")
}

func (o *Options) addServerFlags(fs *pflag.FlagSet) {
	k := o.Kube
	fs.StringVar(&k.BindAddress, "bind-address", k.BindAddress,
		"IP of this node in its family, instead of the one of its Node object; unspecified for none. Nothing is bound to it.")
	fs.BoolVar(&k.BindAddressHardFail, "bind-address-hard-fail", k.BindAddressHardFail,
		"End with an error if the health or metrics address cannot be bound. Otherwise it is tried again and again.")
	fs.StringVar(&k.HealthzBindAddress, "healthz-bind-address", k.HealthzBindAddress, "IP, or IP:port, that answers /healthz and /livez; empty for none.")
	fs.Int32Var(&o.healthzPort, "healthz-port", o.healthzPort, "Port of --healthz-bind-address if it has none; 0 disables the health server.")
	fs.StringVar(&k.MetricsBindAddress, "metrics-bind-address", k.MetricsBindAddress, "IP, or IP:port, that answers /metrics and /proxyMode; empty for none.")
	fs.Int32Var(&o.metricsPort, "metrics-port", o.metricsPort, "Port of --metrics-bind-address if it has none; 0 disables the metrics server.")
	fs.BoolVar(&k.EnableProfiling, "profiling", k.EnableProfiling, "Offer /debug/pprof/ on the metrics address, to local clients.")
	fs.StringVar(&k.ShowHiddenMetricsForVersion, "show-hidden-metrics-for-version", "", "Has no effect: no metric is hidden.")
	for _, name := range []string{"healthz-port", "metrics-port"} {
		_ = fs.MarkDeprecated(name, "use --"+strings.TrimSuffix(name, "port")+"bind-address instead")
	}
}

func (o *Options) addConntrackFlags(fs *pflag.FlagSet) {
	c := &o.Kube.Conntrack
	fs.Int32Var(c.MaxPerCore, "conntrack-max-per-core", *c.MaxPerCore,
		"Connections to track for each CPU. A greater limit is kept; 0 leaves the limit as it is, whatever --conntrack-min says.")
	fs.Int32Var(c.Min, "conntrack-min", *c.Min, "Least number of connections to track on this node.")
	fs.DurationVar(&c.TCPEstablishedTimeout.Duration, "conntrack-tcp-timeout-established", c.TCPEstablishedTimeout.Duration,
		"Idle time after which TCP connections are forgotten; 0 leaves it as it is.")
	fs.DurationVar(&c.TCPCloseWaitTimeout.Duration, "conntrack-tcp-timeout-close-wait", c.TCPCloseWaitTimeout.Duration,
		"The same for connections in the state CLOSE_WAIT.")
	fs.DurationVar(&c.UDPTimeout.Duration, "conntrack-udp-timeout", c.UDPTimeout.Duration,
		"Idle time after which UDP flows that had no answer are forgotten; 0 leaves it as it is.")
	fs.DurationVar(&c.UDPStreamTimeout.Duration, "conntrack-udp-timeout-stream", c.UDPStreamTimeout.Duration,
		"The same for flows that had an answer.")
	fs.BoolVar(&c.TCPBeLiberal, "conntrack-tcp-be-liberal", c.TCPBeLiberal,
		"Take TCP packets outside of the window for valid; false leaves it as it is.")
}
