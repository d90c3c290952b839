package manifests

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// maxSeries is how many series a node may have.
const maxSeries = 500

// absent are metrics of kube-proxy that Sluice does not have, and why. docs/differences.md says the same.
var absent = []struct{ names, reason string }{
	{`go_(cgo|cpu|gc|godebug|memory|runtime|sched|sync)_.*`, "all that the Go runtime tells of itself is more than half of what a node may have; the usual go_ metrics are there"},
	{`rest_client_(request|response)_size_bytes|rest_client_rate_limiter_duration_seconds`, "a proxy asks a few times and then watches; they would be a quarter of what a node may have"},
	{`rest_client_exec_plugin_.*|rest_client_transport_(cache|cert_rotation)_gc_calls_total`, "about a library's inner life"},
	{`aggregator_.*|apiserver_.*|authentication_.*|authorization_.*|cardinality_enforcement_.*|disabled_metrics_total|hidden_metrics_total|registered_metrics_total|etcd_.*|field_validation_.*|leader_election_.*|workqueue_.*|informer_.*|storage_.*|queued_items.*|resource_.*|version_.*`,
		"they come with libraries of kube-proxy, and say nothing of a proxy"},
	{`promhttp_metric_handler_requests_.*`, "about reading metrics"},
	{`kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total`, "there is no clean-up apart from the transactions that are counted"},
}

func absence(name string) string {
	for _, a := range absent {
		if regexp.MustCompile(`^(` + a.names + `)$`).MatchString(name) {
			return a.reason
		}
	}
	return ""
}

// scrape is what Prometheus would read on the node: the lines, without comments.
func (w *world) scrape() ([]string, error) {
	a, err := suite.Get(w.Node, "http://127.0.0.1:10249/metrics")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(a.Body), "\n")
	return slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "#") }), nil
}

var series = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? \S+$`)

// labelSets gives, by metric, its sets of label names and, for histograms, its bounds.
func labelSets(t *testing.T, lines []string) map[string][]string {
	t.Helper()
	label := regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
	sets := map[string][]string{}
	for _, line := range lines {
		match := series.FindStringSubmatch(line)
		if match == nil {
			t.Fatalf("not a sample: %s", line)
		}
		var names []string
		for _, l := range label.FindAllStringSubmatch(match[2], -1) {
			if name := l[1]; name == "le" {
				names = append(names, "le="+l[2])
			} else {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		sets[match[1]] = append(sets[match[1]], strings.Join(names, ","))
	}
	for name, list := range sets {
		slices.Sort(list)
		sets[name] = slices.Compact(list)
	}
	return sets
}

// Dashboards and alerts for kube-proxy find what they look for: every name, every label, every bucket, but for a list
// with reasons. And a node with both families has no more series than it may have.
func TestMetricsAreThoseOfKubeProxy(t *testing.T) {
	for _, mode := range []string{"iptables", "nftables"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fresh)
			kubeconfig := w.plane.WriteKubeconfig(t, kubeProxyUser)
			args := []string{
				"--kubeconfig=" + kubeconfig, "--hostname-override=" + nodeName, "--cluster-cidr=" + lab.ClusterCIDR.String(),
				"--conntrack-max-per-core=0", "--proxy-mode=" + mode,
			}
			theirs := w.observe(t, suite.KubeProxy, args)
			ours := w.observe(t, sluiceBinary, args)
			if diff := gocmp.Diff(theirs.answers, ours.answers); diff != "" {
				t.Errorf("answers (-kube-proxy +sluice):\n%s", diff)
			}
			if diff := gocmp.Diff(theirs.configFields, ours.configFields); diff != "" {
				t.Errorf("fields in /configz (-kube-proxy +sluice):\n%s", diff)
			}
			w.compareGates(t, theirs.metrics)
			compareMetrics(t, labelSets(t, theirs.metrics), labelSets(t, ours.metrics))
			t.Logf("mode %s: %d series, kube-proxy %d", mode, len(ours.metrics), len(theirs.metrics))
			if len(ours.metrics) > maxSeries {
				t.Errorf("%d series, more than %d", len(ours.metrics), maxSeries)
			}
		})
	}
}

func compareMetrics(t *testing.T, theirs, ours map[string][]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		metric := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		reason := cmp.Or(absence(name), absence(metric))
		sets, there := ours[name]
		switch {
		case !there && reason == "":
			t.Errorf("%s is missing; kube-proxy's has labels %q", name, theirs[name])
		case there && reason != "" && !strings.HasPrefix(name, "go_"): // some of these are there
			t.Errorf("%s is there, and said to be absent: %s", name, reason)
		case there && name != "kubernetes_feature_enabled":
			if diff := gocmp.Diff(theirs[name], sets); diff != "" {
				t.Errorf("labels of %s (-kube-proxy +sluice):\n%s", name, diff)
			}
		}
	}
}

// compareGates checks the list of gates that are accepted against those that the real kube-proxy has.
func (w *world) compareGates(t *testing.T, theirs []string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "cmd", "sluice", "config", "gates.txt"))
	if err != nil {
		t.Fatal(err)
	}
	// Those of version 1.37 it cannot have.
	want := map[string]bool{"KubeProxyIPVS": true, "KubeProxyNFTablesLocalhostNodePorts": true, "NFTablesNetlink": true}
	got := map[string]bool{}
	gate := regexp.MustCompile(`^kubernetes_feature_enabled\{name="(\w+)",`)
	for _, line := range theirs {
		if match := gate.FindStringSubmatch(line); match != nil {
			want[match[1]] = true
		}
	}
	for line := range strings.Lines(string(content)) {
		if words := strings.Fields(line); words[0] != "#" {
			got[words[0]] = true
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("feature gates (-kube-proxy +sluice):\n%s", diff)
	}
}

// observed is what a proxy says over HTTP.
type observed struct {
	metrics []string
	answers map[string]string // by URL; times are replaced

	configFields []string // of /configz; the values are compared elsewhere
}

// observe runs a proxy while Services come, and gives what it says.
func (w *world) observe(t *testing.T, program string, args []string) observed {
	t.Helper()
	c := container{spec: corev1.Container{Name: filepath.Base(program), Args: args, SecurityContext: &corev1.SecurityContext{Privileged: new(true)}}, program: program}
	r := c.start(t, w.Node)
	defer r.Kill() // kube-proxy does not end by itself after SIGTERM
	eventually(t, "healthy", func() error { return w.ready(r) })
	o := observed{answers: map[string]string{}}
	for i, f := range proxy.Families {
		w.changeEndpoints(t, f, i)
	}
	w.balance(t)
	for _, url := range answered {
		eventually(t, url, func() error {
			a, err := suite.Get(w.Node, url)
			if err == nil && a.Status != http.StatusOK && !strings.HasSuffix(url, unknown) {
				err = fmt.Errorf("%d %s", a.Status, a.Body)
			}
			o.answers[url] = normal(a)
			return err
		})
	}
	eventually(t, "the changes are measured", func() error {
		var err error
		if o.metrics, err = w.scrape(); err != nil {
			return err
		}
		for _, f := range proxy.Families {
			want := fmt.Sprintf(`kubeproxy_network_programming_duration_seconds_count{ip_family="%v"}`, f)
			if !slices.ContainsFunc(o.metrics, func(line string) bool { return strings.HasPrefix(line, want) }) {
				return fmt.Errorf("no %s", want)
			}
		}
		return nil
	})
	a, err := suite.Get(w.Node, "http://127.0.0.1:10249/configz")
	if err != nil {
		t.Fatal(err)
	}
	var config any
	if err := json.Unmarshal([]byte(a.Body), &config); err != nil {
		t.Fatalf("configz: %v: %s", err, a.Body)
	}
	o.configFields = keys("", config)
	w.deleteServices(t)
	return o
}

// keys are the names of all fields in a JSON value.
func keys(prefix string, value any) []string {
	var all []string
	if object, ok := value.(map[string]any); ok {
		for _, key := range slices.Sorted(maps.Keys(object)) {
			all = append(all, prefix+key)
			all = append(all, keys(prefix+key+".", object[key])...)
		}
	}
	return all
}

// unknown is a path that nobody answers.
const unknown = "/unknown"

// healthPort is that of the Service that a load balancer asks about.
const healthPort = 30042

// answered are the URLs whose answers must be the same, to the letter.
var answered = []string{
	"http://127.0.0.1:10256/healthz", "http://127.0.0.1:10256/livez", "http://127.0.0.1:10256" + unknown,
	"http://127.0.0.1:10249/healthz", "http://127.0.0.1:10249/proxyMode", "http://127.0.0.1:10249" + unknown,
	fmt.Sprintf("http://%v:%d/", lab.NodeIP, healthPort), fmt.Sprintf("http://[%v]:%d/any", lab.In(proxy.IPv6, lab.NodeIP), healthPort),
}

// normal is an answer without what is another each time.
func normal(a suite.Answer) string {
	text := fmt.Sprintln(a.Status)
	for _, name := range []string{"Content-Type", "X-Content-Type-Options", "X-Load-Balancing-Endpoint-Weight"} {
		text += fmt.Sprintln(name, a.Header.Get(name))
	}
	return text + regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-][0-9:]+)`).ReplaceAllString(a.Body, "TIME")
}

// balance makes a Service of both families that a load balancer leads to, with an endpoint here.
func (w *world) balance(t *testing.T) {
	t.Helper()
	const name = "balanced"
	dual := corev1.IPFamilyPolicyRequireDualStack
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, IPFamilyPolicy: &dual,
		HealthCheckNodePort: healthPort, Ports: []corev1.ServicePort{{Port: servicePort}},
	}}
	if _, err := w.api.CoreV1().Services(metav1.NamespaceDefault).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.createSlices(t, name, corev1.ProtocolTCP, nodeName)
}

// changeEndpoints makes a UDP Service of one family whose policies are Local, with an endpoint that is not here.
func (w *world) changeEndpoints(t *testing.T, f proxy.Family, i int) {
	t.Helper()
	family := []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}[f]
	name, local := fmt.Sprint("measured-", i), corev1.ServiceInternalTrafficPolicyLocal
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, InternalTrafficPolicy: &local, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
		IPFamilies: []corev1.IPFamily{family}, Ports: []corev1.ServicePort{{Port: servicePort, Protocol: corev1.ProtocolUDP}},
	}}
	if _, err := w.api.CoreV1().Services(metav1.NamespaceDefault).Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.createSlice(t, name, name, f, corev1.ProtocolUDP, "elsewhere")
}

// createSlices makes the EndpointSlices of a Service of both families.
func (w *world) createSlices(t *testing.T, service string, protocol corev1.Protocol, node string) {
	t.Helper()
	for _, f := range proxy.Families {
		w.createSlice(t, service, fmt.Sprintf("%s-%s", service, strings.ToLower(f.String())), f, protocol, node)
	}
}

func (w *world) createSlice(t *testing.T, service, name string, f proxy.Family, protocol corev1.Protocol, node string) {
	t.Helper()
	port := int32(targetPort)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service},
			Annotations: map[string]string{corev1.EndpointsLastChangeTriggerTime: time.Now().UTC().Format(time.RFC3339Nano)},
		},
		AddressType: []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}[f],
		Ports:       []discoveryv1.EndpointPort{{Port: &port, Protocol: &protocol}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{w.Pods[0].Addr(f).String()}, NodeName: &node}},
	}
	if _, err := w.api.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// deleteServices leaves the cluster as it was, but for the Service of the API server.
func (w *world) deleteServices(t *testing.T) {
	t.Helper()
	services, slices := w.api.CoreV1().Services(metav1.NamespaceDefault), w.api.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	list, err := services.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range list.Items {
		if service.Name == "kubernetes" {
			continue
		}
		if err := services.Delete(t.Context(), service.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		of := metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service.Name}
		if err := slices.DeleteCollection(t.Context(), metav1.DeleteOptions{}, of); err != nil {
			t.Fatal(err)
		}
	}
}
