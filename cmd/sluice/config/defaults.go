package config

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
	"k8s.io/utils/ptr"

	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
)

// The ports of the two servers, unless the configuration says otherwise.
const (
	healthzPort = 10256
	metricsPort = 10249
)

// setDefaults fills in what k leaves out, as kube-proxy does. A zero is no value in most fields; where it means something the
// field is a pointer.
func setDefaults(k *v1alpha1.KubeProxyConfiguration) {
	k.APIVersion, k.Kind = v1alpha1.SchemeGroupVersion.String(), kind
	orElse(&k.BindAddress, "0.0.0.0")
	healthz, metrics := serverAddresses(k.BindAddress)
	orElse(&k.HealthzBindAddress, healthz)
	orElse(&k.MetricsBindAddress, metrics)
	orElse(&k.OOMScoreAdj, ptr.To[int32](-999))
	orElse(&k.ConfigSyncPeriod.Duration, 15*time.Minute)
	orElse(&k.ClientConnection.ContentType, "application/vnd.kubernetes.protobuf")
	orElse(&k.ClientConnection.QPS, 5)
	orElse(&k.ClientConnection.Burst, 10)

	orElse(&k.IPTables.MasqueradeBit, ptr.To[int32](14))
	orElse(&k.IPTables.LocalhostNodePorts, ptr.To(true))
	orElse(&k.IPTables.SyncPeriod.Duration, 30*time.Second)
	orElse(&k.IPTables.MinSyncPeriod.Duration, time.Second)
	orElse(&k.IPVS.SyncPeriod.Duration, 30*time.Second) // and no least time between two writes
	orElse(&k.NFTables.MasqueradeBit, ptr.To[int32](14))
	orElse(&k.NFTables.SyncPeriod.Duration, 30*time.Second)
	orElse(&k.NFTables.MinSyncPeriod.Duration, time.Second)

	orElse(&k.Conntrack.MaxPerCore, ptr.To[int32](32*1024))
	orElse(&k.Conntrack.Min, ptr.To[int32](128*1024))
	orElse(&k.Conntrack.TCPEstablishedTimeout, &metav1.Duration{Duration: 24 * time.Hour})
	orElse(&k.Conntrack.TCPCloseWaitTimeout, &metav1.Duration{Duration: time.Hour})
	logsapi.SetRecommendedLoggingConfiguration(&k.Logging)
}

func orElse[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// serverAddresses are the addresses of the health and the metrics server on a node with that bind address.
func serverAddresses(bind string) (healthz, metrics string) {
	if addr, ok := parseAddr(bind); ok && addr.Is6() {
		return "[::]:10256", "[::1]:10249"
	}
	return "0.0.0.0:10256", "127.0.0.1:10249"
}

// setModeDefaults fills in what depends on the mode.
func setModeDefaults(k *v1alpha1.KubeProxyConfiguration) {
	if string(k.Mode) == nftablesMode && len(k.NodePortAddresses) == 0 {
		k.NodePortAddresses = []string{"primary"}
	}
	orElse(&k.DetectLocalMode, v1alpha1.LocalMode(nodeinfo.ClusterCIDR))
}
