package config

import "k8s.io/kube-proxy/config/v1alpha1"

// noteIneffective notes what is set and means nothing here. What is only written out with its default is not worth a word.
func (o *Options) noteIneffective() {
	k, s := o.Kube, o.section()
	for _, setting := range []struct {
		name   string
		is     bool
		reason string
	}{
		{"ipvs.strictARP", k.IPVS.StrictARP && s.name == ipvsMode, "no address of a Service is on an interface, so nobody answers ARP for it"},
		{"showHiddenMetricsForVersion", k.ShowHiddenMetricsForVersion != "", "no metric is hidden"},
		{"portRange", k.PortRange != "", "NodePorts need no ports of the host"},
		{"winkernel", k.Winkernel != v1alpha1.KubeProxyWinkernelConfiguration{}, "this is not Windows"},
		{"windowsRunAsService", k.WindowsRunAsService, "this is not Windows"},
		{"--boot-id-file", o.bootIDFile != "", "kube-proxy has it from a library, and does not use it either"},
		{"--machine-id-file", o.machineID != "", "kube-proxy has it from a library, and does not use it either"},
	} {
		if setting.is {
			o.note(setting.name, setting.reason)
		}
	}
	if s.name != ipvsMode && o.flags != nil {
		for _, flag := range []string{"ipvs-sync-period", "ipvs-min-sync-period", "ipvs-scheduler", "ipvs-exclude-cidrs",
			"ipvs-strict-arp", "ipvs-tcp-timeout", "ipvs-tcpfin-timeout", "ipvs-udp-timeout"} {
			if o.flags.Changed(flag) && o.content == nil {
				o.note("--"+flag, "it is for mode ipvs")
			}
		}
	}
}
