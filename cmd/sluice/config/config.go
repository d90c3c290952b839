package config

import (
	"slices"
	"strings"
	"time"

	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/httpserver"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
)

// Config is what a run needs, checked. Nothing changes it.
type Config struct {
	Mode            string // Auto or a mode that there is
	IPTablesBackend xtables.Backend
	IPVS            ipvs.Config // without DropInvalid

	Client           Client
	ManifestDir      string // not empty: no cluster
	ConfigSyncPeriod time.Duration

	Node             nodeinfo.Config // without Families
	ExternalIPs      bool            // spec.externalIPs is served
	PriorityServices []proxy.ServiceName

	MinSyncPeriod, SyncPeriod time.Duration
	AuditInterval             time.Duration // 0: never
	Conntrack                 conntrack.Tuning
	OOMScoreAdj               int

	HealthzAddr, MetricsAddr string // empty: no server
	HardFail, Profiling      bool
	StatusPage               StatusPage

	// Kube is all of it in kube-proxy's terms, for those who ask what is in force.
	Kube *v1alpha1.KubeProxyConfiguration

	Gates []Gate // those that change what Sluice does
	Notes []Note // what is in the configuration and has no effect
	File  *File  // nil without --config
}

// Client says how to talk to the API server.
type Client struct {
	Kubeconfig, Master              string
	ContentType, AcceptContentTypes string
	QPS                             float32
	Burst                           int
}

// Validate turns what Complete has left into a configuration, which is not usable if there is an error. The error
// names every problem. Validate touches nothing.
func (o *Options) Validate() (*Config, error) {
	c := &checker{file: o.content != nil}
	k, s := o.Kube, o.section()
	bit := markBit(c, "iptables.masqueradeBit", *k.IPTables.MasqueradeBit)
	if s.name == nftablesMode {
		bit = markBit(c, "nftables.masqueradeBit", s.masqueradeBit)
	}
	cfg := &Config{
		Mode:            o.mode(c),
		IPTablesBackend: xtables.Backend(o.Own.IPTablesBackend),
		IPVS:            o.ipvs(c, bit),
		Client: Client{
			Kubeconfig:         k.ClientConnection.Kubeconfig,
			Master:             o.Master,
			ContentType:        k.ClientConnection.ContentType,
			AcceptContentTypes: k.ClientConnection.AcceptContentTypes,
			QPS:                k.ClientConnection.QPS,
			Burst:              int(atLeastZero(c, "clientConnection.burst", k.ClientConnection.Burst)),
		},
		ManifestDir:      o.Own.ManifestDir,
		ConfigSyncPeriod: positive(c, "configSyncPeriod", k.ConfigSyncPeriod.Duration),
		Node:             o.node(c, bit, s.masqueradeAll),
		PriorityServices: serviceNames(o.Own.PriorityServices, func(format string, args ...any) { c.addFlag("priority-services", format, args...) }),
		SyncPeriod:       positive(c, s.name+".syncPeriod", s.syncPeriod),
		MinSyncPeriod:    s.minSyncPeriod,
		AuditInterval:    o.Own.AuditInterval,
		Conntrack:        o.conntrack(c),
		OOMScoreAdj:      int(*k.OOMScoreAdj),
		HealthzAddr:      o.address(c, "healthzBindAddress", k.HealthzBindAddress, "healthz-port", o.healthzPort),
		MetricsAddr:      o.address(c, "metricsBindAddress", k.MetricsBindAddress, "metrics-port", o.metricsPort),
		HardFail:         k.BindAddressHardFail,
		Profiling:        k.EnableProfiling,
		StatusPage:       StatusPage(o.Own.StatusPage),
		Kube:             k,
		Gates:            o.gates(c),
	}
	cfg.ExternalIPs = slices.Contains(cfg.Gates, Gate{Name: allowServiceExternalIPs, Stage: "GA", Enabled: true})
	if s.minSyncPeriod < 0 || s.minSyncPeriod > s.syncPeriod {
		c.add(s.name+".minSyncPeriod", "%v is not between 0 and %s, %v", s.minSyncPeriod, c.name(s.name+".syncPeriod"), s.syncPeriod)
	}
	if cfg.OOMScoreAdj < -1000 || cfg.OOMScoreAdj > 1000 {
		c.add("oomScoreAdj", "%d is not between -1000 and 1000", cfg.OOMScoreAdj)
	}
	o.checkHiddenMetrics(c)
	o.checkLogging(c)
	o.checkOwn(c)
	o.noteIneffective()
	cfg.Notes = o.notes
	if o.content != nil {
		cfg.File = &File{path: o.ConfigFile, content: o.content, usable: o.usable}
	}
	return cfg, c.err()
}

// mode is the name of a mode that there is. As in kube-proxy, none given means the best of them.
func (o *Options) mode(c *checker) string {
	mode := string(o.Kube.Mode)
	switch {
	case mode == "":
		return Auto
	case !slices.Contains(o.modes, mode):
		c.add("mode", "%q is not available; the modes are %s", mode, strings.Join(o.modes, ", "))
	}
	return mode
}

func (o *Options) conntrack(c *checker) conntrack.Tuning {
	t := o.Kube.Conntrack
	return conntrack.Tuning{
		MaxPerCore:     int(atLeastZero(c, "conntrack.maxPerCore", *t.MaxPerCore)),
		Min:            int(atLeastZero(c, "conntrack.min", *t.Min)),
		TCPEstablished: atLeastZero(c, "conntrack.tcpEstablishedTimeout", t.TCPEstablishedTimeout.Duration),
		TCPCloseWait:   atLeastZero(c, "conntrack.tcpCloseWaitTimeout", t.TCPCloseWaitTimeout.Duration),
		UDP:            atLeastZero(c, "conntrack.udpTimeout", t.UDPTimeout.Duration),
		UDPStream:      atLeastZero(c, "conntrack.udpStreamTimeout", t.UDPStreamTimeout.Duration),
		TCPBeLiberal:   t.TCPBeLiberal,
	}
}

// address completes the address of a server; empty disables it.
func (o *Options) address(c *checker, field, value, portFlag string, port int32) string {
	if port < 0 || port > 65535 {
		c.addFlag(portFlag, "%d is not between 0 and 65535", port)
		return ""
	}
	addr, err := httpserver.Address(value, uint16(port))
	c.note(field, err)
	return addr
}

// hiddenMetricsOf is the only version that --show-hidden-metrics-for-version may name: the one before that of the
// kube-proxy that Sluice takes the place of.
const hiddenMetricsOf = "1.35"

func (o *Options) checkHiddenMetrics(c *checker) {
	if v := o.Kube.ShowHiddenMetricsForVersion; v != "" && v != hiddenMetricsOf {
		c.add("showHiddenMetricsForVersion", "%q is not the version before, %s", v, hiddenMetricsOf)
	}
}
