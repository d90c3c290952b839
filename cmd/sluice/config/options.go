package config

import (
	"slices"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// Options are what a command line says, and with --config what the file says. Only one goroutine may use them.
type Options struct {
	ConfigFile, WriteConfigTo string
	Cleanup, InitOnly         bool
	Master                    string
	HostnameOverride          string // wins over the file

	// Kube is the configuration in kube-proxy's terms: what the flags say until Complete, from then on what counts.
	Kube *v1alpha1.KubeProxyConfiguration

	// Own are the options that kube-proxy does not have. They count with --config, too.
	Own OwnOptions

	healthzPort, metricsPort int32
	bootIDFile, machineID    string // nor have these

	modes   []string // that there are
	flags   *pflag.FlagSet
	content []byte // of the file; nil without one
	notes   []Note
}

// Note says that something in the configuration has no effect, which is worth a line in the log.
type Note struct{ Setting, Reason string }

func (o *Options) note(setting, reason string) {
	if n := (Note{setting, reason}); !slices.Contains(o.notes, n) {
		o.notes = append(o.notes, n)
	}
}

// The names of modes that have a section of their own in kube-proxy's configuration. Auto stands for the first mode
// that a node can run.
const (
	Auto         = "auto"
	ipvsMode     = "ipvs"
	nftablesMode = "nftables"
)

// NewOptions are the defaults, for a program that has those modes, beside Auto.
func NewOptions(modes []string) *Options {
	k := &v1alpha1.KubeProxyConfiguration{}
	setDefaults(k)
	k.IPVS.MinSyncPeriod.Duration = time.Second // as the flag has it, but not the file
	return &Options{
		Kube:        k,
		Own:         newOwnOptions(),
		healthzPort: healthzPort,
		metricsPort: metricsPort,
		modes:       append([]string{Auto}, modes...),
	}
}

// Complete decides what counts: the flags or, with --config, the file and a few of the flags. It reads the file.
func (o *Options) Complete() error {
	if o.ConfigFile != "" {
		o.noteIgnored()
		return o.load()
	}
	o.completeFlags()
	setModeDefaults(o.Kube)
	return nil
}

// completeFlags fills in what depends on other flags, unless a flag says it.
func (o *Options) completeFlags() {
	k := o.Kube
	if o.HostnameOverride != "" {
		k.HostnameOverride = o.HostnameOverride
	}
	// The old flags for a port alone: 0 is for no server, any other is for an address that has none.
	if o.healthzPort == 0 {
		k.HealthzBindAddress = ""
	}
	if o.metricsPort == 0 {
		k.MetricsBindAddress = ""
	}
	// There are no flags for nftables: those of iptables are for every mode but ipvs.
	k.NFTables.MasqueradeBit, k.NFTables.MasqueradeAll = k.IPTables.MasqueradeBit, k.IPTables.MasqueradeAll
	k.NFTables.SyncPeriod, k.NFTables.MinSyncPeriod = k.IPTables.SyncPeriod, k.IPTables.MinSyncPeriod
}

// withFile are the flags of kube-proxy that count beside --config.
var withFile = []string{"config", "write-config-to", "cleanup", "init-only", "hostname-override", "master"}

// noteIgnored notes the flags that --config makes void. kube-proxy says nothing.
func (o *Options) noteIgnored() {
	o.flags.Visit(func(f *pflag.Flag) {
		if _, ofKube := fieldOf(f.Name); ofKube && !slices.Contains(withFile, f.Name) {
			o.note("--"+f.Name, "--config is given, and its file counts")
		}
	})
}

// section is the part of the configuration that a mode has for itself in kube-proxy.
type section struct {
	name                      string
	syncPeriod, minSyncPeriod time.Duration
	masqueradeBit             int32
	masqueradeAll             bool
}

// section is that of the mode. As kube-proxy takes an empty mode for iptables, so does Auto go by what is said of that,
// whatever mode it turns out to be; and ipvs has no say in how packets are masqueraded.
func (o *Options) section() section {
	k := o.Kube
	s := section{"iptables", k.IPTables.SyncPeriod.Duration, k.IPTables.MinSyncPeriod.Duration, *k.IPTables.MasqueradeBit, k.IPTables.MasqueradeAll}
	switch string(k.Mode) {
	case ipvsMode:
		s.name, s.syncPeriod, s.minSyncPeriod = "ipvs", k.IPVS.SyncPeriod.Duration, k.IPVS.MinSyncPeriod.Duration
	case nftablesMode:
		if n := k.NFTables; o.content != nil { // else it repeats what the flags say of iptables
			s = section{"nftables", n.SyncPeriod.Duration, n.MinSyncPeriod.Duration, *n.MasqueradeBit, n.MasqueradeAll}
		}
	}
	return s
}
