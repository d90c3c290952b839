package track

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// The limits of session affinity, as the API server knows them.
const (
	defaultAffinity = time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
	maxAffinity     = 24 * time.Hour
)

// service is what the policy reads of the object; nil if it is not ours to serve.
func (r *reader) service(obj *corev1.Service) (*policy.Service, complaints) {
	found := complaints{logger: r.logger}
	if !ours(obj) {
		return nil, found
	}
	if !isLabel(obj.Namespace) || !isLabel(obj.Name) {
		found.add("its name is not valid")
		return nil, found
	}
	spec := &obj.Spec
	external := externalLocal(spec)
	return &policy.Service{
		Created:             obj.CreationTimestamp.UTC(),
		Priority:            r.isPriority(obj),
		Ports:               r.servicePorts(spec.Ports, &found),
		ClusterIPs:          clusterIPs(spec, &found),
		ExternalIPs:         r.readExternalIPs(spec.ExternalIPs, &found),
		LoadBalancerIPs:     loadBalancerIPs(obj.Status.LoadBalancer.Ingress, &found),
		SourceRanges:        sourceRanges(spec.LoadBalancerSourceRanges, &found),
		ExternalLocal:       external,
		InternalLocal:       spec.InternalTrafficPolicy != nil && *spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal,
		Affinity:            affinity(spec, &found),
		Scheduler:           scheduler(obj, &found),
		HealthCheckNodePort: healthCheckNodePort(spec, external, &found),
	}, found
}

func ours(obj *corev1.Service) bool {
	_, foreign := obj.Labels[labelServiceProxyName]
	ip := strings.TrimSpace(obj.Spec.ClusterIP)
	return !foreign && obj.Spec.Type != corev1.ServiceTypeExternalName && ip != "" && ip != corev1.ClusterIPNone
}

// isLabel tells whether s is a DNS label. Names become part of the kernel's rules, where other
// characters could mean something.
func isLabel(s string) bool { return len(validation.IsDNS1123Label(s)) == 0 }

func (r *reader) isPriority(obj *corev1.Service) bool {
	return r.priority[proxy.ServiceName{Namespace: obj.Namespace, Name: obj.Name}] || obj.Labels["k8s-app"] == "kube-dns"
}

func (r *reader) servicePorts(ports []corev1.ServicePort, found *complaints) []policy.Port {
	list := make([]policy.Port, 0, len(ports))
	for i := range ports {
		p := &ports[i]
		protocol, known := protocolOf(p.Protocol)
		switch {
		case !known:
			found.add("port %.64q has the unknown protocol %.64q", p.Name, p.Protocol)
		case !isPort(p.Port):
			found.add("port %.64q has the number %d", p.Name, p.Port)
		case p.Name != "" && !isLabel(p.Name):
			found.add("the name of port %.64q is not valid", p.Name)
		default:
			list = append(list, policy.Port{
				Name:     r.names.string(p.Name),
				Protocol: protocol,
				Port:     uint16(p.Port),
				NodePort: nodePort(p.Name, p.NodePort, found),
			})
		}
	}
	return list
}

func nodePort(name string, number int32, found *complaints) uint16 {
	if number == 0 || isPort(number) {
		return uint16(number)
	}
	found.add("port %.64q has the node port %d", name, number)
	return 0
}

func isPort(number int32) bool { return 0 < number && number <= 65535 }

// protocolOf reads a protocol; an empty one is TCP, as the API server would have it.
func protocolOf(p corev1.Protocol) (proxy.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return proxy.TCP, true
	case corev1.ProtocolUDP:
		return proxy.UDP, true
	case corev1.ProtocolSCTP:
		return proxy.SCTP, true
	}
	return 0, false
}

// clusterIPs are the Service's own addresses by family. An address counts for the family that the
// Service lists at its position; Services from before dual stack have only the single field.
func clusterIPs(spec *corev1.ServiceSpec, found *complaints) [2]netip.Addr {
	texts := spec.ClusterIPs
	if len(spec.IPFamilies) == 0 || len(texts) == 0 {
		texts = []string{spec.ClusterIP}
	}
	var ips [2]netip.Addr
	for i, text := range texts {
		ip, ok := found.address("cluster IP", text, isServiceAddr)
		if !ok {
			continue
		}
		family := proxy.FamilyOf(ip)
		if len(spec.IPFamilies) > 0 && (i >= len(spec.IPFamilies) || string(spec.IPFamilies[i]) != family.String()) {
			found.add("cluster IP %v is not of the family listed for it", ip)
			continue
		}
		if !ips[family].IsValid() {
			ips[family] = ip
		}
	}
	return ips
}

func (r *reader) readExternalIPs(texts []string, found *complaints) []netip.Addr {
	if !r.externalIPs {
		return nil
	}
	var ips []netip.Addr
	for _, text := range texts {
		// The API server refuses link-local ones here, of which one is the cloud's metadata service.
		ip, ok := found.address("external IP", text, func(a netip.Addr) bool { return isServiceAddr(a) && !a.IsLinkLocalUnicast() })
		if ok {
			ips = append(ips, ip)
		}
	}
	return addrSet(ips)
}

// loadBalancerIPs are the addresses that the node serves in place of the load balancer. An address with
// ipMode Proxy is left to the load balancer.
func loadBalancerIPs(ingress []corev1.LoadBalancerIngress, found *complaints) []netip.Addr {
	var ips []netip.Addr
	for i := range ingress {
		in := &ingress[i]
		if in.IPMode != nil && *in.IPMode != corev1.LoadBalancerIPModeVIP {
			continue
		}
		if ip, ok := found.address("load balancer IP", in.IP, isServiceAddr); ok {
			ips = append(ips, ip)
		}
	}
	return addrSet(ips)
}

// isServiceAddr tells whether the node may take a for a Service: not if that would take the host's own
// loopback traffic, or stand for all addresses.
func isServiceAddr(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast()
}

// address reads one address. A blank one is none, without complaint.
func (c *complaints) address(what, text string, usable func(netip.Addr) bool) (netip.Addr, bool) {
	if strings.TrimSpace(text) == "" {
		return netip.Addr{}, false
	}
	addr, err := parseAddr(text)
	if err != nil || !usable(addr) {
		c.add("%s %.64q cannot be used", what, text)
		return netip.Addr{}, false
	}
	return addr, true
}

func sourceRanges(texts []string, found *complaints) []netip.Prefix {
	var ranges []netip.Prefix
	for _, text := range texts {
		if strings.TrimSpace(text) == "" {
			continue
		}
		prefix, err := parsePrefix(text)
		if err != nil {
			found.add("source range %.64q cannot be used", text)
			continue
		}
		ranges = append(ranges, prefix)
	}
	slices.SortFunc(ranges, netip.Prefix.Compare)
	return slices.Clip(slices.Compact(ranges))
}

func addrSet(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Clip(slices.Compact(addrs))
}

// externalLocal is the external traffic policy where it means something: on Services that clients
// outside the cluster can reach by their type or their external IPs, whether these are honoured or not.
func externalLocal(spec *corev1.ServiceSpec) bool {
	if spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return false
	}
	switch spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeClusterIP, "":
		return len(spec.ExternalIPs) > 0
	}
	return false
}

// annotationScheduler names a scheduler of IPVS for a Service.
const annotationScheduler = "ipvs.sluice-proxy.io/scheduler"

// schedulerName is what the kernel takes for the name of one.
var schedulerName = regexp.MustCompile(`^[a-z]{1,15}$`)

func scheduler(obj *corev1.Service, found *complaints) string {
	name, given := obj.Annotations[annotationScheduler]
	if given && !schedulerName.MatchString(name) {
		found.add("the scheduler %.64q cannot be one of IPVS", name)
		return ""
	}
	return name
}

func affinity(spec *corev1.ServiceSpec, found *complaints) time.Duration {
	if spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	config := spec.SessionAffinityConfig
	if config == nil || config.ClientIP == nil || config.ClientIP.TimeoutSeconds == nil {
		return defaultAffinity
	}
	seconds := *config.ClientIP.TimeoutSeconds
	timeout := time.Duration(seconds) * time.Second
	switch {
	case timeout <= 0:
		found.add("the affinity timeout is %d seconds", seconds)
		return defaultAffinity
	case timeout > maxAffinity:
		found.add("the affinity timeout is %d seconds", seconds)
		return maxAffinity
	}
	return timeout
}

func healthCheckNodePort(spec *corev1.ServiceSpec, externalLocal bool, found *complaints) uint16 {
	if spec.Type != corev1.ServiceTypeLoadBalancer || !externalLocal {
		return 0
	}
	if !isPort(spec.HealthCheckNodePort) {
		found.add("the health check node port is %d", spec.HealthCheckNodePort)
		return 0
	}
	return uint16(spec.HealthCheckNodePort)
}
