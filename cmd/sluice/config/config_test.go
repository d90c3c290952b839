package config

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
)

// newFlags has all flags of o.
func newFlags(o *Options) *pflag.FlagSet {
	fs := pflag.NewFlagSet("sluice", pflag.ContinueOnError)
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.Replace(name, "proxy-mode", "mode", 1))
	})
	o.AddFlags(fs)
	o.AddLogFlags(fs)
	return fs
}

// parse goes the way from arguments to a configuration.
func parse(t *testing.T, args ...string) (*Config, error) {
	t.Helper()
	o := NewOptions([]string{"nftables", "iptables", "ipvs"})
	fs := newFlags(o)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := o.Complete(); err != nil {
		return nil, err
	}
	return o.Validate()
}

func mustParse(t *testing.T, args ...string) *Config {
	t.Helper()
	cfg, err := parse(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestDefaultsAreThoseOfKubeProxy(t *testing.T) {
	cfg := mustParse(t, "--hostname-override", " Node-1 ")
	want := &Config{
		Mode:             Auto, // kube-proxy's is iptables
		IPTablesBackend:  xtables.Auto,
		StatusPage:       StatusOn,
		IPVS:             ipvs.Config{RouteMark: 0x2000, DrainLimit: 15 * time.Minute, CompatInterface: ipvs.CompatAuto},
		Client:           Client{ContentType: "application/vnd.kubernetes.protobuf", QPS: 5, Burst: 10},
		ConfigSyncPeriod: 15 * time.Minute,
		Node: nodeinfo.Config{
			Name:               "node-1",
			BindAddress:        netip.IPv4Unspecified(),
			PodDetector:        nodeinfo.PodDetector{Mode: nodeinfo.ClusterCIDR},
			LocalhostNodePorts: true,
			MasqueradeMark:     0x4000,
		},
		ExternalIPs:   true,
		AuditInterval: 10 * time.Minute,
		MinSyncPeriod: time.Second,
		SyncPeriod:    30 * time.Second,
		Conntrack:     conntrack.Tuning{MaxPerCore: 32768, Min: 131072, TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour},
		OOMScoreAdj:   -999,
		HealthzAddr:   "0.0.0.0:10256",
		MetricsAddr:   "127.0.0.1:10249",
		Gates: []Gate{
			{"AllowServiceExternalIPs", "GA", true}, {"ContextualLogging", "beta", true},
			{"LoggingAlphaOptions", "alpha", false}, {"LoggingBetaOptions", "beta", true},
		},
		Kube: cfg.Kube, // compared with kube-proxy's own where that is at hand
	}
	diff := cmp.Diff(want, cfg, cmp.AllowUnexported(nodeinfo.NodePortSelection{}),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
	if diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFlagsReachTheConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		ok   func(*Config) bool
	}{
		"proxy-mode is mode": {[]string{"--proxy-mode", "iptables"}, func(c *Config) bool { return c.Mode == "iptables" }},
		"empty mode":         {[]string{"--mode="}, func(c *Config) bool { return c.Mode == Auto }},
		"masquerade all":     {[]string{"--masquerade-all"}, func(c *Config) bool { return c.Node.MasqueradeAll }},
		"nftables, iptables flags": {[]string{"--mode=nftables", "--masquerade-all", "--iptables-masquerade-bit=3", "--iptables-sync-period=5s"}, func(c *Config) bool {
			return c.Node.MasqueradeAll && c.Node.MasqueradeMark == 8 && c.SyncPeriod == 5*time.Second
		}},
		"nftables, default ports": {[]string{"--mode=nftables"}, func(c *Config) bool {
			return c.Kube.NodePortAddresses[0] == "primary" && !c.Node.NodePorts.ServesLocalhost()
		}},
		"ipvs, own periods":     {[]string{"--mode=ipvs", "--iptables-sync-period=5s", "--ipvs-sync-period=7s", "--ipvs-min-sync-period=2s"}, func(c *Config) bool { return c.SyncPeriod == 7*time.Second && c.MinSyncPeriod == 2*time.Second }},
		"ipvs, default periods": {[]string{"--mode=ipvs"}, func(c *Config) bool { return c.SyncPeriod == 30*time.Second && c.MinSyncPeriod == time.Second }},
		"ipvs": {[]string{"--mode=ipvs", "--ipvs-scheduler=mh", "--ipvs-exclude-cidrs=10.1.0.0/16,fd01::/64", "--ipvs-udp-timeout=5s"}, func(c *Config) bool {
			return c.IPVS.Scheduler == "mh" && len(c.IPVS.Exclude) == 2 && c.IPVS.Timeouts.UDP == 5*time.Second
		}},
		"ipvs, own flags": {[]string{"--mode=ipvs", "--ipvs-drain-limit=1m", "--ipvs-route-bit=20", "--ipvs-compat-interface=on"}, func(c *Config) bool {
			return c.IPVS.DrainLimit == time.Minute && c.IPVS.RouteMark == 1<<20 && c.IPVS.CompatInterface == ipvs.CompatOn
		}},
		"ipvs bit, another mode": {[]string{"--mode=auto", "--iptables-masquerade-bit=13"}, func(c *Config) bool { return c.IPVS.RouteMark != c.Node.MasqueradeMark }},
		"ipvs flags elsewhere":   {[]string{"--mode=iptables", "--ipvs-exclude-cidrs=junk"}, func(c *Config) bool { return c.Notes[0].Setting == "--ipvs-exclude-cidrs" }},
		"lenient CIDR": {[]string{"--cluster-cidr=010.001.0.0/16"}, func(c *Config) bool {
			return c.Node.PodDetector.ClusterCIDRs[0] == netip.MustParsePrefix("10.1.0.0/16")
		}},
		"no effect":                 {[]string{"--show-hidden-metrics-for-version=1.35", "--machine-id-file=/x", "--feature-gates=SidecarContainers=true"}, func(c *Config) bool { return len(c.Notes) == 2 }},
		"masquerade bit":            {[]string{"--iptables-masquerade-bit", "31"}, func(c *Config) bool { return c.Node.MasqueradeMark == 1<<31 }},
		"two cluster CIDRs":         {[]string{"--cluster-cidr", "10.0.0.0/8,fd00::/48"}, func(c *Config) bool { return len(c.Node.PodDetector.ClusterCIDRs) == 2 }},
		"bridge":                    {[]string{"--detect-local-mode", "BridgeInterface", "--pod-bridge-interface", "br0"}, func(c *Config) bool { return c.Node.PodDetector.Interface == "br0" }},
		"longest interface":         {[]string{"--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix", "abcdefghijklmno"}, func(c *Config) bool { return c.Node.PodDetector.Interface == "abcdefghijklmno" }},
		"interface prefix":          {[]string{"--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix", "veth"}, func(c *Config) bool { return c.Node.PodDetector.Interface == "veth" }},
		"manifests":                 {[]string{"--manifest-dir", "/m"}, func(c *Config) bool { return c.ManifestDir == "/m" && c.Node.Standalone }},
		"service CIDRs":             {[]string{"--service-cidrs", "10.96.0.1/12"}, func(c *Config) bool { return c.Node.ServiceCIDRs[0] == netip.MustParsePrefix("10.96.0.0/12") }},
		"priority":                  {[]string{"--priority-services", "a/b,c/d"}, func(c *Config) bool { return c.PriorityServices[1] == proxy.ServiceName{Namespace: "c", Name: "d"} }},
		"external IPs off":          {[]string{"--feature-gates", "AllowServiceExternalIPs=false,AllAlpha=true"}, func(c *Config) bool { return !c.ExternalIPs }},
		"no gates":                  {[]string{"--feature-gates="}, func(c *Config) bool { return c.ExternalIPs }},
		"gates of others":           {[]string{"--feature-gates", "NFTablesProxyMode=true,NativeHistograms=true", "--feature-gates", "WatchList=false"}, func(c *Config) bool { return c.ExternalIPs }},
		"lenient bind address":      {[]string{"--bind-address", "192.000.002.010"}, func(c *Config) bool { return c.Node.BindAddress == netip.MustParseAddr("192.0.2.10") }},
		"IPv6 bind address":         {[]string{"--bind-address", "::"}, func(c *Config) bool { return c.HealthzAddr == "0.0.0.0:10256" && c.MetricsAddr == "127.0.0.1:10249" }},
		"IPv6 and explicit servers": {[]string{"--bind-address", "::", "--metrics-bind-address", "::"}, func(c *Config) bool { return c.HealthzAddr == "0.0.0.0:10256" && c.MetricsAddr == "[::]:10249" }},
		"address without port":      {[]string{"--healthz-bind-address", "::1"}, func(c *Config) bool { return c.HealthzAddr == "[::1]:10256" }},
		"address with port":         {[]string{"--healthz-bind-address", "[::1]:1"}, func(c *Config) bool { return c.HealthzAddr == "[::1]:1" }},
		"no addresses":              {[]string{"--healthz-bind-address=", "--metrics-bind-address="}, func(c *Config) bool { return c.HealthzAddr == "" && c.MetricsAddr == "" }},
		"no servers":                {[]string{"--healthz-port=0", "--metrics-port=0"}, func(c *Config) bool { return c.HealthzAddr == "" && c.MetricsAddr == "" }},
		"no pause":                  {[]string{"--iptables-min-sync-period=0"}, func(c *Config) bool { return c.MinSyncPeriod == 0 }},
		"status page":               {[]string{"--status-page=local"}, func(c *Config) bool { return c.StatusPage == StatusLocal }},
		"legacy":                    {[]string{"--iptables-backend=legacy"}, func(c *Config) bool { return c.IPTablesBackend == xtables.Legacy }},
	} {
		t.Run(name, func(t *testing.T) {
			if cfg := mustParse(t, c.args...); !c.ok(cfg) {
				t.Errorf("got %+v", cfg)
			}
		})
	}
}

func TestEveryMistakeIsReported(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want []string // sorted; of each line, its beginning
	}{
		"mode":              {[]string{"--mode=kernelspace"}, []string{`--mode: "kernelspace" is not available; the modes are auto, nftables, iptables, ipvs`}},
		"periods":           {[]string{"--config-sync-period=0", "--iptables-sync-period=0"}, []string{"--config-sync-period: 0s is not positive", "--iptables-min-sync-period: 1s is not between", "--iptables-sync-period: 0s is not positive"}},
		"min over period":   {[]string{"--iptables-min-sync-period=31s"}, []string{"--iptables-min-sync-period: 31s is not between 0 and --iptables-sync-period, 30s"}},
		"addresses":         {[]string{"--bind-address=x", "--healthz-bind-address=x", "--metrics-bind-address=1.2.3.4:http"}, []string{"--bind-address", "--healthz-bind-address", "--metrics-bind-address"}},
		"ports":             {[]string{"--healthz-bind-address=1.2.3.4:0", "--metrics-port=70000"}, []string{"--healthz-bind-address", "--metrics-port: 70000"}},
		"masquerade bit":    {[]string{"--iptables-masquerade-bit=32"}, []string{"--iptables-masquerade-bit: 32"}},
		"negative bit":      {[]string{"--iptables-masquerade-bit=-1"}, []string{"--iptables-masquerade-bit: -1"}},
		"conntrack":         {[]string{"--conntrack-min=-1", "--conntrack-max-per-core=-1", "--conntrack-udp-timeout=-1s"}, []string{"--conntrack-max-per-core", "--conntrack-min", "--conntrack-udp-timeout"}},
		"oom":               {[]string{"--oom-score-adj=-1001"}, []string{"--oom-score-adj"}},
		"cluster CIDR":      {[]string{"--cluster-cidr=10.0.0.0,x"}, []string{`--cluster-cidr: "10.0.0.0" is not a CIDR`, `--cluster-cidr: "x" is not a CIDR`}},
		"CIDRs, one family": {[]string{"--cluster-cidr=10.0.0.0/8,11.0.0.0/8"}, []string{"--cluster-cidr: 10.0.0.0/8,11.0.0.0/8 is not one CIDR"}},
		"everything a pod":  {[]string{"--cluster-cidr=0.0.0.0/0"}, []string{"--cluster-cidr: 0.0.0.0/0 would take everybody for a pod"}},
		"three CIDRs":       {[]string{"--cluster-cidr=10.0.0.0/8,fd00::/48,fd01::/48"}, []string{"--cluster-cidr"}},
		"detect mode":       {[]string{"--detect-local-mode=Magic"}, []string{`--detect-local-mode: "Magic" is none of [ClusterCIDR NodeCIDR BridgeInterface InterfaceNamePrefix]`}},
		"no bridge":         {[]string{"--detect-local-mode=BridgeInterface"}, []string{"--pod-bridge-interface: is required"}},
		"long bridge":       {[]string{"--detect-local-mode=BridgeInterface", "--pod-bridge-interface=abcdefghijklmnop"}, []string{`--pod-bridge-interface: "abcdefghijklmnop" cannot be`}},
		"odd prefix":        {[]string{"--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth -j DROP"}, []string{`--pod-interface-name-prefix: "veth -j DROP" cannot be`}},
		"wildcard":          {[]string{"--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth+"}, []string{`--pod-interface-name-prefix: "veth+" cannot be`}},
		"no prefix":         {[]string{"--detect-local-mode=InterfaceNamePrefix"}, []string{"--pod-interface-name-prefix: is required"}},
		"node ports":        {[]string{"--nodeport-addresses=primary,10.0.0.1,eth0"}, []string{`--nodeport-addresses: "10.0.0.1"`, `--nodeport-addresses: "eth0"`}},
		"gates":             {[]string{"--feature-gates=Nope=true,NFTablesProxyMode=false"}, []string{"--feature-gates: NFTablesProxyMode is locked to true", `--feature-gates: there is no gate "Nope"`}},
		"blank name":        {[]string{"--hostname-override= "}, []string{"--hostname-override: is blank"}},
		"audit":             {[]string{"--kernel-audit-interval=-1s"}, []string{"--kernel-audit-interval: -1s is less than 0"}},
		"priority":          {[]string{"--priority-services=a,b/,c/d/e"}, []string{`--priority-services: "a"`, `--priority-services: "b/"`, `--priority-services: "c/d/e"`}},
		"status page":       {[]string{"--status-page=yes"}, []string{`--status-page: "yes" is none of on, local, off`}},
		"backend":           {[]string{"--iptables-backend=ebtables"}, []string{`--iptables-backend: "ebtables"`}},
		"nftables bit":      {[]string{"--mode=nftables", "--iptables-masquerade-bit=32"}, []string{"--iptables-masquerade-bit: 32"}},
		"ipvs, own flags":   {[]string{"--mode=ipvs", "--ipvs-drain-limit=0", "--ipvs-route-bit=32", "--ipvs-compat-interface=no", "--ipvs-scheduler=r r"}, []string{`--ipvs-compat-interface: "no"`, "--ipvs-drain-limit: 0s", "--ipvs-route-bit: 32 is not", `--ipvs-scheduler: "r r"`}},
		"ipvs bit":          {[]string{"--mode=ipvs", "--iptables-masquerade-bit=13"}, []string{"--ipvs-route-bit: 13 has another meaning"}},
		"ipvs":              {[]string{"--mode=ipvs", "--ipvs-exclude-cidrs=x", "--ipvs-tcp-timeout=-1s", "--ipvs-min-sync-period=31s"}, []string{`--ipvs-exclude-cidrs: "x"`, "--ipvs-min-sync-period: 31s is not between 0 and --ipvs-sync-period, 30s", "--ipvs-tcp-timeout: -1s is negative"}},
		"hidden metrics":    {[]string{"--show-hidden-metrics-for-version=1.20"}, []string{`--show-hidden-metrics-for-version: "1.20"`}},
		"logging":           {[]string{"--logging-format=xml", "--log-flush-frequency=0s"}, []string{"KubeProxyConfiguration.logging.flushFrequency", "KubeProxyConfiguration.logging.format"}},
		"burst":             {[]string{"--kube-api-burst=-1"}, []string{"--kube-api-burst"}},
		"two sources":       {[]string{"--manifest-dir=/m", "--kubeconfig=/k", "--detect-local-mode=NodeCIDR"}, []string{"--detect-local-mode: NodeCIDR needs", "--manifest-dir: serves instead"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, c.args...)
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("got %q, want %q", lines, c.want)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got %q, want %q", lines[i], want)
				}
			}
		})
	}
}
