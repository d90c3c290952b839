package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	netutils "k8s.io/utils/net"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/httpserver"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
)

// Config is what a run needs, checked. Nothing changes it.
type Config struct {
	Mode       mode
	ModeConfig ModeConfig

	Client           ClientConfig
	ManifestDir      string // not empty: no cluster
	ConfigSyncPeriod time.Duration

	Node             nodeinfo.Config // without Families
	ExternalIPs      bool
	PriorityServices []proxy.ServiceName

	MinSyncPeriod, SyncPeriod time.Duration
	Conntrack                 conntrack.Tuning
	OOMScoreAdj               int

	HealthzAddr, MetricsAddr string // empty: no server
	HardFail, Profiling      bool
}

// withMode is the configuration with another mode.
func (cfg *Config) withMode(m mode) *Config {
	chosen := *cfg
	chosen.Mode = m
	return &chosen
}

// ClientConfig says how to talk to the API server.
type ClientConfig struct {
	Kubeconfig, Master string
	ContentType        string
	QPS                float32
	Burst              int
}

// checker collects problems, each with the flag that it is in.
type checker struct{ problems []error }

func (c *checker) add(flag, format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf("--%s: "+format, append([]any{flag}, args...)...))
}

// note adds an error, which may have several lines, if there is one.
func (c *checker) note(flag string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		c.add(flag, "%s", line)
	}
}

// err has a line for each problem, sorted by flag.
func (c *checker) err() error {
	slices.SortStableFunc(c.problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(c.problems...)
}

// Validate turns the options into a configuration, which is not usable if there is an error. The error names
// every problem. Validate touches nothing.
func (o *Options) Validate() (*Config, error) {
	c := &checker{}
	cfg := &Config{
		ModeConfig: ModeConfig{IPTablesBackend: xtables.Backend(o.IPTablesBackend), TCPBeLiberal: o.ConntrackTCPBeLiberal},
		Client: ClientConfig{
			Kubeconfig: o.Kubeconfig, Master: o.Master, ContentType: o.KubeAPIContentType, QPS: o.KubeAPIQPS, Burst: o.KubeAPIBurst,
		},
		ManifestDir:      o.ManifestDir,
		ConfigSyncPeriod: o.ConfigSyncPeriod,
		Node:             o.node(c),
		ExternalIPs:      externalIPs(c, o.FeatureGates),
		PriorityServices: serviceNames(c, "priority-services", o.PriorityServices),
		MinSyncPeriod:    o.IPTablesMinSyncPeriod,
		SyncPeriod:       o.IPTablesSyncPeriod,
		Conntrack:        o.conntrack(c),
		OOMScoreAdj:      o.OOMScoreAdj,
		HardFail:         o.BindAddressHardFail,
		Profiling:        o.Profiling,
	}
	var err error
	cfg.Mode, err = findMode(o.Mode)
	c.note("mode", err)
	cfg.HealthzAddr = address(c, "healthz", o.HealthzBindAddress, o.HealthzPort)
	cfg.MetricsAddr = address(c, "metrics", o.MetricsBindAddress, o.MetricsPort)
	o.checkRest(c)
	return cfg, c.err()
}

func (o *Options) checkRest(c *checker) {
	if o.ManifestDir != "" && (o.Kubeconfig != "" || o.Master != "") {
		c.add("manifest-dir", "serves instead of a cluster, so it excludes --kubeconfig and --master")
	}
	if o.KubeAPIBurst < 0 {
		c.add("kube-api-burst", "%d is negative", o.KubeAPIBurst)
	}
	if o.ConfigSyncPeriod <= 0 {
		c.add("config-sync-period", "%v is not positive", o.ConfigSyncPeriod)
	}
	if o.IPTablesSyncPeriod <= 0 {
		c.add("iptables-sync-period", "%v is not positive", o.IPTablesSyncPeriod)
	}
	if o.IPTablesMinSyncPeriod < 0 || o.IPTablesMinSyncPeriod > o.IPTablesSyncPeriod {
		c.add("iptables-min-sync-period", "%v is not between 0 and --iptables-sync-period, %v", o.IPTablesMinSyncPeriod, o.IPTablesSyncPeriod)
	}
	if !slices.Contains([]xtables.Backend{xtables.Auto, xtables.NFT, xtables.Legacy}, xtables.Backend(o.IPTablesBackend)) {
		c.add("iptables-backend", "%q is none of auto, nft, legacy", o.IPTablesBackend)
	}
	if o.OOMScoreAdj < -1000 || o.OOMScoreAdj > 1000 {
		c.add("oom-score-adj", "%d is not between -1000 and 1000", o.OOMScoreAdj)
	}
}

// node is what the flags say of the node.
func (o *Options) node(c *checker) nodeinfo.Config {
	name, err := nodeName(o.HostnameOverride)
	c.note("hostname-override", err)
	bind, ok := parseAddr(o.BindAddress)
	if !ok {
		c.add("bind-address", "%q is not an IP address", o.BindAddress)
	}
	selection, err := nodeinfo.ParseNodePortSelection(o.NodePortAddresses)
	c.note("nodeport-addresses", err)
	bit := o.IPTablesMasqueradeBit
	if bit < 0 || bit > 31 {
		c.add("iptables-masquerade-bit", "%d is not between 0 and 31", bit)
		bit = 0
	}
	return nodeinfo.Config{
		Name:               name,
		BindAddress:        bind,
		NodePorts:          selection,
		PodDetector:        o.podDetector(c),
		LocalhostNodePorts: o.IPTablesLocalhostNodePorts,
		ServiceCIDRs:       prefixes(c, "service-cidrs", o.ServiceCIDRs),
		MasqueradeAll:      o.MasqueradeAll,
		MasqueradeMark:     1 << bit,
		Standalone:         o.ManifestDir != "",
	}
}

// nodeName is the name of this node's Node object.
func nodeName(override string) (string, error) {
	name := strings.ToLower(strings.TrimSpace(override))
	if override != "" && name == "" {
		return "", errors.New("is blank")
	}
	if name != "" {
		return name, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	if name = strings.ToLower(strings.TrimSpace(host)); name == "" {
		return "", errors.New("the host has no name, so this is required")
	}
	return name, nil
}

func (o *Options) podDetector(c *checker) nodeinfo.PodDetector {
	d := nodeinfo.PodDetector{
		Mode:         nodeinfo.DetectMode(o.DetectLocalMode),
		ClusterCIDRs: prefixes(c, "cluster-cidr", o.ClusterCIDR),
	}
	if len(d.ClusterCIDRs) > 2 || len(d.ClusterCIDRs) == 2 && d.ClusterCIDRs[0].Addr().Is4() == d.ClusterCIDRs[1].Addr().Is4() {
		c.add("cluster-cidr", "%s is not one CIDR, nor one of each IP family", strings.Join(o.ClusterCIDR, ","))
	}
	for _, p := range d.ClusterCIDRs {
		if p.Bits() == 0 {
			c.add("cluster-cidr", "%v would take everybody for a pod", p)
		}
	}
	switch d.Mode {
	case "", nodeinfo.ClusterCIDR:
		d.Mode = nodeinfo.ClusterCIDR
	case nodeinfo.NodeCIDR:
		if o.ManifestDir != "" {
			c.add("detect-local-mode", "NodeCIDR needs a Node object, and there is none with --manifest-dir")
		}
	case nodeinfo.BridgeInterface:
		d.Interface = interfaceName(c, "pod-bridge-interface", o.PodBridgeInterface, d.Mode)
	case nodeinfo.InterfaceNamePrefix:
		d.Interface = interfaceName(c, "pod-interface-name-prefix", o.PodInterfaceNamePrefix, d.Mode)
	default:
		c.add("detect-local-mode", "%q is none of %v", o.DetectLocalMode, nodeinfo.DetectModes)
	}
	return d
}

// interfaceName checks a name, or the beginning of one, that becomes part of every Service's rules.
func interfaceName(c *checker, flag, name string, mode nodeinfo.DetectMode) string {
	const longest = 15
	wrong := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/:+!"'\`, r) }
	switch {
	case name == "":
		c.add(flag, "is required by --detect-local-mode %s", mode)
	case len(name) > longest, strings.ContainsFunc(name, wrong), strings.HasPrefix(name, "-"):
		c.add(flag, "%q cannot be that of an interface", name)
	}
	return name
}

func (o *Options) conntrack(c *checker) conntrack.Tuning {
	for flag, number := range map[string]int{
		"conntrack-max-per-core": o.ConntrackMaxPerCore,
		"conntrack-min":          o.ConntrackMin,
	} {
		if number < 0 {
			c.add(flag, "%d is negative", number)
		}
	}
	for flag, timeout := range map[string]time.Duration{
		"conntrack-tcp-timeout-established": o.ConntrackEstablished,
		"conntrack-tcp-timeout-close-wait":  o.ConntrackCloseWait,
		"conntrack-udp-timeout":             o.ConntrackUDP,
		"conntrack-udp-timeout-stream":      o.ConntrackUDPStream,
	} {
		if timeout < 0 {
			c.add(flag, "%v is negative", timeout)
		}
	}
	return conntrack.Tuning{
		MaxPerCore:     o.ConntrackMaxPerCore,
		Min:            o.ConntrackMin,
		TCPEstablished: o.ConntrackEstablished,
		TCPCloseWait:   o.ConntrackCloseWait,
		UDP:            o.ConntrackUDP,
		UDPStream:      o.ConntrackUDPStream,
		TCPBeLiberal:   o.ConntrackTCPBeLiberal,
	}
}

// address completes the address of a server; empty disables it.
func address(c *checker, server, value string, port int) string {
	if port < 0 || port > 65535 {
		c.add(server+"-port", "%d is not between 0 and 65535", port)
		return ""
	}
	addr, err := httpserver.Address(value, uint16(port))
	c.note(server+"-bind-address", err)
	return addr
}

func prefixes(c *checker, flag string, texts []string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			c.add(flag, "%q is not a CIDR", text)
			continue
		}
		list = append(list, p.Masked())
	}
	return list
}

func serviceNames(c *checker, flag string, texts []string) []proxy.ServiceName {
	var names []proxy.ServiceName
	for _, text := range texts {
		namespace, name, ok := strings.Cut(text, "/")
		if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
			c.add(flag, "%q is not namespace/name", text)
			continue
		}
		names = append(names, proxy.ServiceName{Namespace: namespace, Name: name})
	}
	return names
}

// parseAddr is as lenient as kube-proxy, which takes 010.0.0.1 for 10.0.0.1.
func parseAddr(text string) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(text))
	return addr.Unmap(), ok
}
