package track

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

func TestServicesThatAreNotOurs(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*corev1.Service)
		ours   bool
	}{
		{"ClusterIP", func(*corev1.Service) {}, true},
		{"NodePort", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }, true},
		{"LoadBalancer", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }, true},
		{"no type", func(s *corev1.Service) { s.Spec.Type = "" }, true},
		{"headless", func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }, false},
		{"headless without a port", func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.Ports = corev1.ClusterIPNone, nil }, false},
		{"no cluster IP", func(s *corev1.Service) { s.Spec.ClusterIP = "" }, false},
		{"ExternalName with an address", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, false},
		{"another proxy's", func(s *corev1.Service) { s.Labels = map[string]string{labelServiceProxyName: "other"} }, false},
		{"another proxy's without a name", func(s *corev1.Service) { s.Labels = map[string]string{labelServiceProxyName: ""} }, false},
		{"name that is not one", func(s *corev1.Service) { s.Name = "x\" drop" }, false},
		{"namespace that is not one", func(s *corev1.Service) { s.Namespace = "-" }, false},
		{"name that is too long", func(s *corev1.Service) { s.Name = strings.Repeat("x", 64) }, false},
		{"longest name", func(s *corev1.Service) { s.Name = strings.Repeat("x", 63) }, true},
	} {
		if got := read(newService("svc", c.change)) != nil; got != c.ours {
			t.Errorf("%s: ours: %t", c.name, got)
		}
	}
}

func TestClusterIPByFamily(t *testing.T) {
	four, six := corev1.IPv4Protocol, corev1.IPv6Protocol
	for _, c := range []struct {
		name     string
		single   string
		ips      []string
		families []corev1.IPFamily
		v4, v6   string
	}{
		{name: "old style IPv4", single: "172.30.0.1", v4: "172.30.0.1"},
		{name: "old style IPv6", single: "fd00::1", v6: "fd00::1"},
		{name: "single stack IPv4", single: "172.30.0.1", ips: []string{"172.30.0.1"}, families: []corev1.IPFamily{four}, v4: "172.30.0.1"},
		{name: "single stack IPv6", single: "fd00::1", ips: []string{"fd00::1"}, families: []corev1.IPFamily{six}, v6: "fd00::1"},
		{name: "dual stack", single: "172.30.0.1", ips: []string{"172.30.0.1", "fd00::1"}, families: []corev1.IPFamily{four, six}, v4: "172.30.0.1", v6: "fd00::1"},
		{name: "dual stack, IPv6 first", single: "fd00::1", ips: []string{"fd00::1", "172.30.0.1"}, families: []corev1.IPFamily{six, four}, v4: "172.30.0.1", v6: "fd00::1"},
		{name: "an address that is not allocated yet", single: "172.30.0.1", ips: []string{"172.30.0.1"}, families: []corev1.IPFamily{four, six}, v4: "172.30.0.1"},
		{name: "written by hand", single: "172.30.0.1", families: []corev1.IPFamily{four}, v4: "172.30.0.1"},
		{name: "contradictory", single: "172.30.0.1", ips: []string{"172.30.0.1", "fd00::1"}, families: []corev1.IPFamily{six, four}},
		{name: "address without a family", single: "172.30.0.1", ips: []string{"172.30.0.1", "fd00::1"}, families: []corev1.IPFamily{four}, v4: "172.30.0.1"},
		{name: "twice the same family", single: "172.30.0.1", ips: []string{"172.30.0.1", "172.30.0.2"}, families: []corev1.IPFamily{four, four}, v4: "172.30.0.1"},
		{name: "leading zeros", single: "172.30.0.041", v4: "172.30.0.41"},
		{name: "mapped", single: "::ffff:172.30.0.1", v4: "172.30.0.1"},
		{name: "unusable", single: "127.0.0.1"},
		{name: "no address", single: "x"},
	} {
		got := read(newService("svc", func(s *corev1.Service) {
			s.Spec.ClusterIP, s.Spec.ClusterIPs, s.Spec.IPFamilies = c.single, c.ips, c.families
		}))
		for family, want := range []string{c.v4, c.v6} {
			ip := got.ClusterIPs[family]
			if ip.IsValid() != (want != "") || ip.IsValid() && ip.String() != want {
				t.Errorf("%s: %v address is %v, want %q", c.name, proxy.Family(family), ip, want)
			}
		}
	}
}

func TestServicePorts(t *testing.T) {
	svc := read(newService("svc", func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{
			{Name: "a", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080},
			{Name: "b", Protocol: corev1.ProtocolUDP, Port: 65535},
			{Name: "c", Protocol: corev1.ProtocolSCTP, Port: 1, NodePort: 70000},
			{Name: "", Port: 81, NodePort: -1},
			{Name: "zero", Protocol: corev1.ProtocolTCP},
			{Name: "negative", Protocol: corev1.ProtocolTCP, Port: -80},
			{Name: "huge", Protocol: corev1.ProtocolTCP, Port: 65536 + 80},
			{Name: "icmp", Protocol: "ICMP", Port: 82},
			{Name: "A b\n", Protocol: corev1.ProtocolTCP, Port: 83},
		}
	}))
	diff(t, "ports", []policy.Port{
		{Name: "a", Protocol: proxy.TCP, Port: 80, NodePort: 30080},
		{Name: "b", Protocol: proxy.UDP, Port: 65535},
		{Name: "c", Protocol: proxy.SCTP, Port: 1},
		{Name: "", Protocol: proxy.TCP, Port: 81},
	}, svc.Ports)
}

func TestExternalAddresses(t *testing.T) {
	obj := newService("svc", func(s *corev1.Service) {
		s.Spec.ExternalIPs = []string{
			"198.51.100.02", "198.51.100.1", "2001:db8::1", "", " ", "198.51.100.1", "x", "0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.169.254",
		}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
			{IP: "203.0.113.3", IPMode: ptr(corev1.LoadBalancerIPModeVIP)},
			{IP: "203.0.113.1"},
			{IP: "203.0.113.2", IPMode: ptr(corev1.LoadBalancerIPModeProxy)},
			{IP: "203.0.113.4", IPMode: ptr(corev1.LoadBalancerIPMode("Unknown"))},
			{Hostname: "lb.example.org"},
			{IP: "2001:db8::2"}, {IP: "::"}, {IP: "::1"}, {IP: "lb.example.org"}, {IP: "169.254.10.10"},
		}
		s.Spec.LoadBalancerSourceRanges = []string{" 192.0.2.0/24 ", "", "10.1.2.3/8", "2001:db8::/32", "192.0.2.0/24", "192.0.2.0", "x/8"}
		s.Spec.LoadBalancerIP = "203.0.113.9"
	})
	svc := read(obj)
	diff(t, "external IPs", addrs("198.51.100.1", "198.51.100.2", "2001:db8::1"), svc.ExternalIPs)
	diff(t, "load-balancer IPs", addrs("169.254.10.10", "203.0.113.1", "203.0.113.3", "2001:db8::2"), svc.LoadBalancerIPs)
	diff(t, "source ranges", []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"),
	}, svc.SourceRanges)

	without := Inputs(Config{Logger: silent}, []*corev1.Service{obj}, nil)[0].Service
	diff(t, "external IPs that are not allowed", []netip.Addr(nil), without.ExternalIPs)
	diff(t, "load-balancer IPs", svc.LoadBalancerIPs, without.LoadBalancerIPs)
}

func TestTrafficPolicies(t *testing.T) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	cluster := corev1.ServiceInternalTrafficPolicyCluster
	for _, c := range []struct {
		name               string
		change             func(*corev1.ServiceSpec)
		external, internal bool
	}{
		{"none", func(*corev1.ServiceSpec) {}, false, false},
		{"internal Local", func(s *corev1.ServiceSpec) { s.InternalTrafficPolicy = &local }, false, true},
		{"internal Cluster", func(s *corev1.ServiceSpec) { s.InternalTrafficPolicy = &cluster }, false, false},
		{"external Local, LoadBalancer", func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeLoadBalancer }, true, false},
		{"external Local, NodePort", func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort }, true, false},
		{"external Local, ClusterIP", func(*corev1.ServiceSpec) {}, false, false},
		{"external Local, ClusterIP with an external IP", func(s *corev1.ServiceSpec) { s.ExternalIPs = []string{"198.51.100.1"} }, true, false},
	} {
		got := read(newService("svc", func(s *corev1.Service) {
			if strings.HasPrefix(c.name, "external Local") {
				s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			}
			c.change(&s.Spec)
		}))
		if got.ExternalLocal != c.external || got.InternalLocal != c.internal {
			t.Errorf("%s: external Local: %t, internal Local: %t", c.name, got.ExternalLocal, got.InternalLocal)
		}
	}
}

func TestScheduler(t *testing.T) {
	for given, want := range map[string]string{"": "", "mh": "mh", "lblcr": "lblcr", "MH": "", "a-b": "", "abcdefghijklmnop": "", "rr;reboot": ""} {
		s := &corev1.Service{}
		if given != "" {
			s.Annotations = map[string]string{annotationScheduler: given}
		}
		found := complaints{}
		if got := scheduler(s, &found); got != want {
			t.Errorf("%q: got %q, want %q", given, got, want)
		}
	}
}

func TestAffinity(t *testing.T) {
	seconds := func(n int32) *corev1.SessionAffinityConfig {
		return &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &n}}
	}
	for _, c := range []struct {
		name     string
		affinity corev1.ServiceAffinity
		config   *corev1.SessionAffinityConfig
		want     time.Duration
	}{
		{"none", corev1.ServiceAffinityNone, seconds(5), 0},
		{"not given", "", nil, 0},
		{"default", corev1.ServiceAffinityClientIP, nil, 3 * time.Hour},
		{"empty", corev1.ServiceAffinityClientIP, &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{}}, 3 * time.Hour},
		{"given", corev1.ServiceAffinityClientIP, seconds(5), 5 * time.Second},
		{"longest", corev1.ServiceAffinityClientIP, seconds(86400), 24 * time.Hour},
		{"too long", corev1.ServiceAffinityClientIP, seconds(1 << 30), 24 * time.Hour},
		{"zero", corev1.ServiceAffinityClientIP, seconds(0), 3 * time.Hour},
		{"negative", corev1.ServiceAffinityClientIP, seconds(-1 << 31), 3 * time.Hour},
	} {
		got := read(newService("svc", func(s *corev1.Service) {
			s.Spec.SessionAffinity, s.Spec.SessionAffinityConfig = c.affinity, c.config
		})).Affinity
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestHealthCheckNodePort(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   corev1.ServiceType
		policy corev1.ServiceExternalTrafficPolicy
		port   int32
		want   uint16
	}{
		{"local load balancer", corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 32000, 32000},
		{"cluster load balancer", corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyCluster, 32000, 0},
		{"node port", corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyLocal, 32000, 0},
		{"missing", corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 0, 0},
		{"huge", corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 1 << 20, 0},
	} {
		got := read(newService("svc", func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = c.kind, c.policy, c.port
		})).HealthCheckNodePort
		if got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestPriority(t *testing.T) {
	cfg := Config{Logger: silent, Priority: []proxy.ServiceName{{Namespace: "ns", Name: "mine"}}}
	named := func(namespace, name string, labels map[string]string) *corev1.Service {
		return newService(name, func(s *corev1.Service) { s.Namespace, s.Labels = namespace, labels })
	}
	got := map[string]bool{}
	for _, in := range Inputs(cfg, []*corev1.Service{
		named("default", "kubernetes", nil), named("kube-system", "kube-dns", nil), named("ns", "mine", nil),
		named("ns", "dns", map[string]string{"k8s-app": "kube-dns"}), named("ns", "web", map[string]string{"k8s-app": "web"}),
		named("ns", "kubernetes", nil),
	}, nil) {
		got[in.Name.String()] = in.Service.Priority
	}
	diff(t, "priority", map[string]bool{
		"default/kubernetes": true, "kube-system/kube-dns": true, "ns/mine": true, "ns/dns": true, "ns/web": false, "ns/kubernetes": false,
	}, got)
}

func TestCreated(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.FixedZone("", 3600))
	got := read(newService("svc", func(s *corev1.Service) { s.CreationTimestamp = metav1.NewTime(at) })).Created
	if !got.Equal(at) || got.Location() != time.UTC {
		t.Errorf("created at %v, want %v", got, at)
	}
}
