package manifest

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy"
)

// setServiceDefaults fills in what an API server would, as far as anybody reads it. It allocates nothing.
func setServiceDefaults(s *corev1.Service) {
	spec := &s.Spec
	setDefault(&s.Namespace, metav1.NamespaceDefault)
	setDefault(&spec.Type, corev1.ServiceTypeClusterIP)
	setDefault(&spec.SessionAffinity, corev1.ServiceAffinityNone)
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		setPointer(&spec.SessionAffinityConfig, corev1.SessionAffinityConfig{})
		setPointer(&spec.SessionAffinityConfig.ClientIP, corev1.ClientIPConfig{})
		setPointer(&spec.SessionAffinityConfig.ClientIP.TimeoutSeconds, corev1.DefaultClientIPServiceAffinitySeconds)
	}
	if spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer || len(spec.ExternalIPs) > 0 {
		setDefault(&spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	if spec.Type != corev1.ServiceTypeExternalName {
		setPointer(&spec.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
		setClusterIPs(spec)
	}
	for i := range spec.Ports {
		setDefault(&spec.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range s.Status.LoadBalancer.Ingress {
		if ingress := &s.Status.LoadBalancer.Ingress[i]; ingress.IP != "" {
			setPointer(&ingress.IPMode, corev1.LoadBalancerIPModeVIP)
		}
	}
}

// setClusterIPs makes clusterIP, clusterIPs and ipFamilies say the same, whichever is there.
func setClusterIPs(spec *corev1.ServiceSpec) {
	if len(spec.ClusterIPs) > 0 {
		setDefault(&spec.ClusterIP, spec.ClusterIPs[0])
	} else if spec.ClusterIP != "" {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	if len(spec.IPFamilies) > 0 {
		return
	}
	for _, text := range spec.ClusterIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		if proxy.FamilyOf(ip) == proxy.IPv6 {
			spec.IPFamilies = append(spec.IPFamilies, corev1.IPv6Protocol)
		} else {
			spec.IPFamilies = append(spec.IPFamilies, corev1.IPv4Protocol)
		}
	}
}

// setSliceDefaults fills in what an API server would. Conditions that are missing stay so: they have a meaning.
func setSliceDefaults(s *discoveryv1.EndpointSlice) {
	setDefault(&s.Namespace, metav1.NamespaceDefault)
	for i := range s.Ports {
		setPointer(&s.Ports[i].Name, "")
		setPointer(&s.Ports[i].Protocol, corev1.ProtocolTCP)
	}
}

func setDefault[T ~string](field *T, value T) {
	if *field == "" {
		*field = value
	}
}

func setPointer[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}
