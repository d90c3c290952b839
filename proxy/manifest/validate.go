package manifest

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-proxy/sluice/proxy"
)

var protocols = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}

// validateService names every mistake that would keep the Service, or a part of it, from being served.
func validateService(s *corev1.Service) field.ErrorList {
	errs := validateMeta(s.ObjectMeta, validation.IsDNS1123Label)
	spec, at := &s.Spec, field.NewPath("spec")
	errs = append(errs, oneOf(at.Child("type"), spec.Type, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName)...)
	if spec.Type == corev1.ServiceTypeExternalName {
		return errs
	}
	errs = append(errs, validateClusterIPs(spec, at)...)
	errs = append(errs, validateServicePorts(spec, at.Child("ports"))...)
	errs = append(errs, validatePolicies(spec, at)...)
	for i, text := range spec.ExternalIPs {
		errs = append(errs, validateIP(at.Child("externalIPs").Index(i), text)...)
	}
	for i, text := range spec.LoadBalancerSourceRanges {
		if _, err := netip.ParsePrefix(strings.TrimSpace(text)); err != nil {
			errs = append(errs, field.Invalid(at.Child("loadBalancerSourceRanges").Index(i), text, "must be a CIDR"))
		}
	}
	ingress := field.NewPath("status", "loadBalancer", "ingress")
	for i, in := range s.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			errs = append(errs, validateIP(ingress.Index(i).Child("ip"), in.IP)...)
			errs = append(errs, oneOf(ingress.Index(i).Child("ipMode"), *in.IPMode, corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy)...)
		}
	}
	return errs
}

// validateSlice names every mistake that would keep the EndpointSlice, or a part of it, from being used.
func validateSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	errs := validateMeta(s.ObjectMeta, validation.IsDNS1123Subdomain)
	if s.Labels[discoveryv1.LabelServiceName] == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "labels").Key(discoveryv1.LabelServiceName),
			"it names the Service that the endpoints belong to"))
	}
	errs = append(errs, oneOf(field.NewPath("addressType"), s.AddressType, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)...)
	for i, e := range s.Endpoints {
		at := field.NewPath("endpoints").Index(i).Child("addresses")
		if len(e.Addresses) == 0 {
			errs = append(errs, field.Required(at, "an endpoint has an address"))
		}
		for j, text := range e.Addresses {
			errs = append(errs, validateEndpointIP(at.Index(j), text, s.AddressType)...)
		}
	}
	return append(errs, validateSlicePorts(s.Ports, field.NewPath("ports"))...)
}

func validateMeta(m metav1.ObjectMeta, validName func(string) []string) field.ErrorList {
	at := field.NewPath("metadata")
	var errs field.ErrorList
	if m.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else if mistakes := validName(m.Name); len(mistakes) > 0 {
		errs = append(errs, field.Invalid(at.Child("name"), m.Name, strings.Join(mistakes, "; ")))
	}
	if mistakes := validation.IsDNS1123Label(m.Namespace); len(mistakes) > 0 {
		errs = append(errs, field.Invalid(at.Child("namespace"), m.Namespace, strings.Join(mistakes, "; ")))
	}
	return errs
}

func validateClusterIPs(spec *corev1.ServiceSpec, at *field.Path) field.ErrorList {
	switch {
	case spec.ClusterIP == "":
		return field.ErrorList{field.Required(at.Child("clusterIP"), "nobody allocates one here; None makes a headless Service")}
	case spec.ClusterIP == corev1.ClusterIPNone:
		return nil
	case spec.ClusterIP != spec.ClusterIPs[0]:
		return field.ErrorList{field.Invalid(at.Child("clusterIPs").Index(0), spec.ClusterIPs[0], "must be the clusterIP")}
	}
	var errs field.ErrorList
	families := sets.New[proxy.Family]()
	for i, text := range spec.ClusterIPs {
		path := at.Child("clusterIPs").Index(i)
		if i == 0 {
			path = at.Child("clusterIP")
		}
		if mistakes := validateIP(path, text); len(mistakes) > 0 {
			errs = append(errs, mistakes...)
			continue
		}
		f := proxy.FamilyOf(netip.MustParseAddr(text))
		if families.Has(f) {
			errs = append(errs, field.Invalid(path, text, "there is one address of its family already"))
		}
		families.Insert(f)
	}
	return errs
}

func validateServicePorts(spec *corev1.ServiceSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(spec.Ports) == 0 && spec.ClusterIP != corev1.ClusterIPNone {
		errs = append(errs, field.Required(at, "a Service has a port"))
	}
	names, numbers := sets.New[string](), sets.New[corev1.ServicePort]()
	for i, p := range spec.Ports {
		at := at.Index(i)
		errs = append(errs, validatePortName(at.Child("name"), p.Name, len(spec.Ports) > 1, names)...)
		errs = append(errs, oneOf(at.Child("protocol"), p.Protocol, protocols...)...)
		errs = append(errs, validatePort(at.Child("port"), p.Port)...)
		number := corev1.ServicePort{Protocol: p.Protocol, Port: p.Port}
		if numbers.Has(number) {
			errs = append(errs, field.Duplicate(at.Child("port"), p.Port))
		}
		numbers.Insert(number)
		if p.NodePort != 0 {
			errs = append(errs, validatePort(at.Child("nodePort"), p.NodePort)...)
		} else if spec.Type == corev1.ServiceTypeNodePort {
			errs = append(errs, field.Required(at.Child("nodePort"), "nobody allocates one here"))
		}
	}
	return errs
}

func validatePolicies(spec *corev1.ServiceSpec, at *field.Path) field.ErrorList {
	errs := oneOf(at.Child("internalTrafficPolicy"), *spec.InternalTrafficPolicy,
		corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)
	if spec.ExternalTrafficPolicy != "" {
		errs = append(errs, oneOf(at.Child("externalTrafficPolicy"), spec.ExternalTrafficPolicy,
			corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	}
	errs = append(errs, oneOf(at.Child("sessionAffinity"), spec.SessionAffinity, corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP)...)
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		const most = 86400
		timeout := *spec.SessionAffinityConfig.ClientIP.TimeoutSeconds
		if mistakes := validation.IsInRange(int(timeout), 1, most); len(mistakes) > 0 {
			errs = append(errs, field.Invalid(at.Child("sessionAffinityConfig", "clientIP", "timeoutSeconds"), timeout, mistakes[0]))
		}
	}
	if spec.HealthCheckNodePort != 0 {
		errs = append(errs, validatePort(at.Child("healthCheckNodePort"), spec.HealthCheckNodePort)...)
	}
	return errs
}

func validateSlicePorts(ports []discoveryv1.EndpointPort, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, p := range ports {
		at := at.Index(i)
		errs = append(errs, validatePortName(at.Child("name"), *p.Name, false, names)...)
		errs = append(errs, oneOf(at.Child("protocol"), *p.Protocol, protocols...)...)
		if p.Port == nil {
			errs = append(errs, field.Required(at.Child("port"), ""))
		} else {
			errs = append(errs, validatePort(at.Child("port"), *p.Port)...)
		}
	}
	return errs
}

// validatePortName checks a name and that it is none of the others, to which it is added.
func validatePortName(at *field.Path, name string, required bool, others sets.Set[string]) field.ErrorList {
	var errs field.ErrorList
	if name == "" && required {
		errs = append(errs, field.Required(at, "a Service with several ports names them"))
	} else if mistakes := validation.IsDNS1123Label(name); name != "" && len(mistakes) > 0 {
		errs = append(errs, field.Invalid(at, name, strings.Join(mistakes, "; ")))
	}
	if missing := name == "" && required; others.Has(name) && !missing {
		errs = append(errs, field.Duplicate(at, name))
	}
	others.Insert(name)
	return errs
}

func validatePort(at *field.Path, port int32) field.ErrorList {
	if mistakes := validation.IsValidPortNum(int(port)); len(mistakes) > 0 {
		return field.ErrorList{field.Invalid(at, port, mistakes[0])}
	}
	return nil
}

func validateIP(at *field.Path, text string) field.ErrorList {
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" {
		return field.ErrorList{field.Invalid(at, text, "must be an IP address")}
	}
	if ip.Is4In6() || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() {
		return field.ErrorList{field.Invalid(at, text, "must be an address that a host can have")}
	}
	return nil
}

func validateEndpointIP(at *field.Path, text string, kind discoveryv1.AddressType) field.ErrorList {
	if errs := validateIP(at, text); len(errs) > 0 {
		return errs
	}
	is6 := proxy.FamilyOf(netip.MustParseAddr(text)) == proxy.IPv6
	if is6 != (kind == discoveryv1.AddressTypeIPv6) {
		return field.ErrorList{field.Invalid(at, text, "must be an address of addressType "+string(kind))}
	}
	return nil
}

func oneOf[T ~string](at *field.Path, value T, valid ...T) field.ErrorList {
	for _, v := range valid {
		if v == value {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(at, value, valid)}
}
