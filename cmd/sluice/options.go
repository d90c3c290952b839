package main

import (
	"time"

	"github.com/spf13/pflag"
)

// Options are the flags as they were given.
type Options struct {
	Kubeconfig, Master     string
	KubeAPIContentType     string
	KubeAPIQPS             float32
	KubeAPIBurst           int
	ConfigSyncPeriod       time.Duration
	ManifestDir            string
	HostnameOverride       string
	FeatureGates           []string
	Mode                   string
	ClusterCIDR            []string
	DetectLocalMode        string
	PodBridgeInterface     string
	PodInterfaceNamePrefix string
	NodePortAddresses      []string
	ServiceCIDRs           []string
	PriorityServices       []string
	MasqueradeAll          bool
	OOMScoreAdj            int
	Cleanup, InitOnly      bool

	IPTablesMasqueradeBit      int
	IPTablesLocalhostNodePorts bool
	IPTablesSyncPeriod         time.Duration
	IPTablesMinSyncPeriod      time.Duration
	IPTablesBackend            string

	BindAddress           string
	BindAddressHardFail   bool
	HealthzBindAddress    string
	HealthzPort           int
	MetricsBindAddress    string
	MetricsPort           int
	Profiling             bool
	ConntrackMaxPerCore   int
	ConntrackMin          int
	ConntrackEstablished  time.Duration
	ConntrackCloseWait    time.Duration
	ConntrackUDP          time.Duration
	ConntrackUDPStream    time.Duration
	ConntrackTCPBeLiberal bool
}

// NewOptions are the defaults.
func NewOptions() *Options {
	return &Options{
		KubeAPIContentType:         "application/vnd.kubernetes.protobuf",
		KubeAPIQPS:                 5,
		KubeAPIBurst:               10,
		ConfigSyncPeriod:           15 * time.Minute,
		Mode:                       auto,
		OOMScoreAdj:                -999,
		IPTablesMasqueradeBit:      14,
		IPTablesLocalhostNodePorts: true,
		IPTablesSyncPeriod:         30 * time.Second,
		IPTablesMinSyncPeriod:      time.Second,
		IPTablesBackend:            "auto",
		BindAddress:                "0.0.0.0",
		HealthzBindAddress:         "0.0.0.0:10256",
		HealthzPort:                10256,
		MetricsBindAddress:         "127.0.0.1:10249",
		MetricsPort:                10249,
		ConntrackMaxPerCore:        32 * 1024,
		ConntrackMin:               128 * 1024,
		ConntrackEstablished:       24 * time.Hour,
		ConntrackCloseWait:         time.Hour,
	}
}

// AddFlags makes a flag for each option.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.addSourceFlags(fs)
	o.addNodeFlags(fs)
	o.addIPTablesFlags(fs)
	o.addServerFlags(fs)
	o.addConntrackFlags(fs)
}

func (o *Options) addSourceFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig,
		"File that says how to reach the API server. Without it and --master the pod's service account is used, with "+
			"KUBERNETES_SERVICE_HOST, which must then be an address that works without Services.")
	fs.StringVar(&o.Master, "master", o.Master, "URL of the API server; overrides the kubeconfig.")
	fs.StringVar(&o.KubeAPIContentType, "kube-api-content-type", o.KubeAPIContentType, "Encoding of requests to the API server.")
	fs.Float32Var(&o.KubeAPIQPS, "kube-api-qps", o.KubeAPIQPS, "Requests a second to the API server.")
	fs.IntVar(&o.KubeAPIBurst, "kube-api-burst", o.KubeAPIBurst, "Requests to the API server that may come at once.")
	fs.DurationVar(&o.ConfigSyncPeriod, "config-sync-period", o.ConfigSyncPeriod,
		"How often everything that is known of the cluster is looked through again.")
	fs.StringVar(&o.ManifestDir, "manifest-dir", o.ManifestDir,
		"Directory of YAML and JSON files with Services and EndpointSlices to serve instead of a cluster. It is watched.")
	fs.StringSliceVar(&o.PriorityServices, "priority-services", o.PriorityServices,
		"Services (namespace/name) that are served first at a start, besides default/kubernetes, kube-system/kube-dns and what is labelled k8s-app=kube-dns.")
	fs.StringSliceVar(&o.FeatureGates, "feature-gates", o.FeatureGates,
		"Pairs of gate and true or false. AllowServiceExternalIPs (default true) decides whether spec.externalIPs is served. "+
			"The other gates of kube-proxy are accepted and change nothing.")
}

func (o *Options) addNodeFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.HostnameOverride, "hostname-override", o.HostnameOverride,
		"Name of this Node, if it is not the host name. With a wrong name no endpoint is local.")
	fs.StringVar(&o.Mode, "mode", o.Mode, "How Services reach the kernel: "+modeNames()+". auto is the first of the others that this node can run. Also --proxy-mode.")
	fs.StringSliceVar(&o.ClusterCIDR, "cluster-cidr", o.ClusterCIDR,
		"Addresses of pods: a CIDR, or one for each IP family. It tells traffic of pods from other traffic, which is masqueraded on its way to a ClusterIP.")
	fs.StringVar(&o.DetectLocalMode, "detect-local-mode", o.DetectLocalMode,
		"How traffic of pods is told from other traffic: ClusterCIDR (the default), NodeCIDR, BridgeInterface, InterfaceNamePrefix.")
	fs.StringVar(&o.PodBridgeInterface, "pod-bridge-interface", o.PodBridgeInterface,
		"Bridge that all pods of the node are attached to, for --detect-local-mode BridgeInterface.")
	fs.StringVar(&o.PodInterfaceNamePrefix, "pod-interface-name-prefix", o.PodInterfaceNamePrefix,
		"How the names of all interfaces of pods begin, for --detect-local-mode InterfaceNamePrefix.")
	fs.StringSliceVar(&o.NodePortAddresses, "nodeport-addresses", o.NodePortAddresses,
		"Addresses of the node that serve NodePorts: CIDRs, primary (the node's own IPs), localhost, all. Changes of addresses are followed. Empty is all.")
	fs.StringSliceVar(&o.ServiceCIDRs, "service-cidrs", o.ServiceCIDRs,
		"Ranges of ClusterIPs, beside those of ServiceCIDR objects. Traffic to an address in them that no Service has goes nowhere.")
	fs.BoolVar(&o.MasqueradeAll, "masquerade-all", o.MasqueradeAll, "Masquerade everything that is sent to a ClusterIP.")
	fs.BoolVar(&o.Cleanup, "cleanup", o.Cleanup, "Remove everything that Sluice has put into the kernel, and exit. The same as sluice cleanup.")
	fs.BoolVar(&o.InitOnly, "init-only", o.InitOnly,
		"Set the kernel parameters, check that the mode can work, and exit. A second start then needs no more than CAP_NET_ADMIN, "+
			"and CAP_NET_RAW for the legacy iptables backend.")
	fs.IntVar(&o.OOMScoreAdj, "oom-score-adj", o.OOMScoreAdj, "oom_score_adj of this process, -1000 to 1000.")
}

func (o *Options) addIPTablesFlags(fs *pflag.FlagSet) {
	fs.IntVar(&o.IPTablesMasqueradeBit, "iptables-masquerade-bit", o.IPTablesMasqueradeBit,
		"Bit of the packet mark (0 to 31) that asks for masquerading.")
	fs.BoolVar(&o.IPTablesLocalhostNodePorts, "iptables-localhost-nodeports", o.IPTablesLocalhostNodePorts,
		"Serve NodePorts on 127.0.0.1, too, if --nodeport-addresses includes it. Sets net.ipv4.conf.all.route_localnet.")
	fs.DurationVar(&o.IPTablesSyncPeriod, "iptables-sync-period", o.IPTablesSyncPeriod,
		"Half the time after which a change that has not reached the kernel makes the node unhealthy.")
	fs.DurationVar(&o.IPTablesMinSyncPeriod, "iptables-min-sync-period", o.IPTablesMinSyncPeriod,
		"Least time between a change of the rules and the next. The first change after a pause is never delayed.")
	fs.StringVar(&o.IPTablesBackend, "iptables-backend", o.IPTablesBackend,
		"Which iptables to use: nft, legacy, or auto, the one that kubelet and others on this node use.")
}

func (o *Options) addServerFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.BindAddress, "bind-address", o.BindAddress,
		"IP of this node in its family, instead of the one of its Node object; unspecified for none. Nothing is bound to it.")
	fs.BoolVar(&o.BindAddressHardFail, "bind-address-hard-fail", o.BindAddressHardFail,
		"End with an error if the health or metrics address cannot be bound. Otherwise it is tried again and again.")
	fs.StringVar(&o.HealthzBindAddress, "healthz-bind-address", o.HealthzBindAddress, "IP, or IP:port, that answers /healthz and /livez; empty for none.")
	fs.IntVar(&o.HealthzPort, "healthz-port", o.HealthzPort, "Port of --healthz-bind-address if it has none; 0 disables the health server.")
	fs.StringVar(&o.MetricsBindAddress, "metrics-bind-address", o.MetricsBindAddress, "IP, or IP:port, that answers /metrics and /proxyMode; empty for none.")
	fs.IntVar(&o.MetricsPort, "metrics-port", o.MetricsPort, "Port of --metrics-bind-address if it has none; 0 disables the metrics server.")
	fs.BoolVar(&o.Profiling, "profiling", o.Profiling, "Offer /debug/pprof/ on the metrics address, to local clients.")
}

func (o *Options) addConntrackFlags(fs *pflag.FlagSet) {
	fs.IntVar(&o.ConntrackMaxPerCore, "conntrack-max-per-core", o.ConntrackMaxPerCore,
		"Connections to track for each CPU. A greater limit is kept; 0 leaves the limit as it is, whatever --conntrack-min says.")
	fs.IntVar(&o.ConntrackMin, "conntrack-min", o.ConntrackMin, "Least number of connections to track on this node.")
	fs.DurationVar(&o.ConntrackEstablished, "conntrack-tcp-timeout-established", o.ConntrackEstablished,
		"Idle time after which TCP connections are forgotten; 0 leaves it as it is.")
	fs.DurationVar(&o.ConntrackCloseWait, "conntrack-tcp-timeout-close-wait", o.ConntrackCloseWait,
		"The same for connections in the state CLOSE_WAIT.")
	fs.DurationVar(&o.ConntrackUDP, "conntrack-udp-timeout", o.ConntrackUDP,
		"Idle time after which UDP flows that had no answer are forgotten; 0 leaves it as it is.")
	fs.DurationVar(&o.ConntrackUDPStream, "conntrack-udp-timeout-stream", o.ConntrackUDPStream,
		"The same for flows that had an answer.")
	fs.BoolVar(&o.ConntrackTCPBeLiberal, "conntrack-tcp-be-liberal", o.ConntrackTCPBeLiberal,
		"Take TCP packets outside of the window for valid; false leaves it as it is.")
}

// Complete fills in what depends on other options, unless a flag says it.
func (o *Options) Complete(flags *pflag.FlagSet) {
	if bind, ok := parseAddr(o.BindAddress); ok && bind.Is6() {
		if !flags.Changed("healthz-bind-address") {
			o.HealthzBindAddress = "[::]:10256"
		}
		if !flags.Changed("metrics-bind-address") {
			o.MetricsBindAddress = "[::1]:10249"
		}
	}
}
