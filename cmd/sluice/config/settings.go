package config

// fields has each of kube-proxy's flags with the field of KubeProxyConfiguration that says the same; some have none.
var fields = map[string]string{
	"bind-address":                      "bindAddress",
	"bind-address-hard-fail":            "bindAddressHardFail",
	"boot-id-file":                      "",
	"cleanup":                           "",
	"cluster-cidr":                      "clusterCIDR",
	"config":                            "",
	"config-sync-period":                "configSyncPeriod",
	"conntrack-max-per-core":            "conntrack.maxPerCore",
	"conntrack-min":                     "conntrack.min",
	"conntrack-tcp-be-liberal":          "conntrack.tcpBeLiberal",
	"conntrack-tcp-timeout-close-wait":  "conntrack.tcpCloseWaitTimeout",
	"conntrack-tcp-timeout-established": "conntrack.tcpEstablishedTimeout",
	"conntrack-udp-timeout":             "conntrack.udpTimeout",
	"conntrack-udp-timeout-stream":      "conntrack.udpStreamTimeout",
	"detect-local-mode":                 "detectLocalMode",
	"feature-gates":                     "featureGates",
	"healthz-bind-address":              "healthzBindAddress",
	"healthz-port":                      "",
	"hostname-override":                 "hostnameOverride",
	"init-only":                         "",
	"iptables-localhost-nodeports":      "iptables.localhostNodePorts",
	"iptables-masquerade-bit":           "iptables.masqueradeBit",
	"iptables-min-sync-period":          "iptables.minSyncPeriod",
	"iptables-sync-period":              "iptables.syncPeriod",
	"ipvs-exclude-cidrs":                "ipvs.excludeCIDRs",
	"ipvs-min-sync-period":              "ipvs.minSyncPeriod",
	"ipvs-scheduler":                    "ipvs.scheduler",
	"ipvs-strict-arp":                   "ipvs.strictARP",
	"ipvs-sync-period":                  "ipvs.syncPeriod",
	"ipvs-tcp-timeout":                  "ipvs.tcpTimeout",
	"ipvs-tcpfin-timeout":               "ipvs.tcpFinTimeout",
	"ipvs-udp-timeout":                  "ipvs.udpTimeout",
	"kube-api-burst":                    "clientConnection.burst",
	"kube-api-content-type":             "clientConnection.contentType",
	"kube-api-qps":                      "clientConnection.qps",
	"kubeconfig":                        "clientConnection.kubeconfig",
	"machine-id-file":                   "",
	"masquerade-all":                    "iptables.masqueradeAll",
	"master":                            "",
	"metrics-bind-address":              "metricsBindAddress",
	"metrics-port":                      "",
	"mode":                              "mode", // also proxy-mode
	"nodeport-addresses":                "nodePortAddresses",
	"oom-score-adj":                     "oomScoreAdj",
	"pod-bridge-interface":              "detectLocal.bridgeInterface",
	"pod-interface-name-prefix":         "detectLocal.interfaceNamePrefix",
	"profiling":                         "enableProfiling",
	"show-hidden-metrics-for-version":   "showHiddenMetricsForVersion",
	"write-config-to":                   "",
}

// fieldOf is the field that says the same as a flag of kube-proxy, and whether it is one.
func fieldOf(flag string) (field string, ofKube bool) {
	field, ofKube = fields[flag]
	return field, ofKube
}

// flagOf is the flag that says the same as a field, or nothing.
func flagOf(field string) string {
	for flag, f := range fields {
		if f == field {
			return flag
		}
	}
	return ""
}
