package manifests

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy/metrics"
)

var monitoring = filepath.Join(root, "manifests", "components", "monitoring")

// alert is a rule of the PrometheusRule.
type alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

// alerts are all rules, once Prometheus and its operator have accepted all objects that are for them.
func alerts(t *testing.T) []alert {
	t.Helper()
	var input strings.Builder
	for _, file := range []string{"podmonitor.yaml", "prometheusrule.yaml"} {
		text, err := os.ReadFile(filepath.Join(monitoring, file))
		if err != nil {
			t.Fatal(err)
		}
		input.WriteString("---\n" + string(text))
	}
	var all []alert
	answer(t, &all, input.String(), "rules")
	return all
}

// answer reads what a judge says.
func answer(t *testing.T, into any, input string, args ...string) {
	t.Helper()
	if err := json.Unmarshal(judge(t, input, args...), into); err != nil {
		t.Fatal(err)
	}
}

// panel is a panel of the dashboard.
type panel struct {
	Title       string
	Expressions []string
}

// panels are those of the dashboard, once Grafana's schema accepts it.
func panels(t *testing.T) []panel {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(monitoring, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []panel
	answer(t, &all, string(text), "dashboard")
	return all
}

// selector is what an expression asks for.
type selector struct {
	Metric string
	Labels []string
}

// asked are the selectors of expressions.
func asked(t *testing.T, expressions []string) []selector {
	t.Helper()
	input, err := json.Marshal(expressions)
	if err != nil {
		t.Fatal(err)
	}
	var found [][]selector
	answer(t, &found, string(input), "promql")
	return slices.Concat(found...)
}

// ofOthers are metrics that others have, and the labels that the shipped queries use of them.
var ofOthers = map[string][]string{
	"up": nil, // Prometheus
	"kube_daemonset_status_number_unavailable": {"daemonset"}, // kube-state-metrics
	"node_nf_conntrack_entries":                nil,           // node-exporter
	"node_nf_conntrack_entries_limit":          nil,
}

// ofPrometheus are labels that Prometheus adds, the last of them because the PodMonitor says so.
var ofPrometheus = []string{"job", "instance", "node"}

// Everything that alerts and dashboard ask for is there, with the labels that they ask by.
func TestAlertsAndDashboardAskForWhatExists(t *testing.T) {
	t.Parallel()
	var expressions []string
	for _, a := range alerts(t) {
		expressions = append(expressions, a.Expr)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$node", ".*")
	for _, p := range panels(t) {
		for _, e := range p.Expressions {
			expressions = append(expressions, variables.Replace(e))
		}
	}
	wanted := asked(t, expressions)
	if len(wanted) < 30 {
		t.Fatalf("only %d selectors found", len(wanted))
	}
	offered := scraped(t, ways[len(ways)-1])
	for _, w := range ways {
		maps.Copy(offered, registered(t, w.mode))
	}
	for metric, labels := range ofOthers {
		offered[metric] = labels
	}
	for _, s := range wanted {
		labels, exists := offered[s.Metric]
		if !exists {
			t.Errorf("there is no metric %s", s.Metric)
			continue
		}
		for _, label := range s.Labels {
			if !slices.Contains(labels, label) && !slices.Contains(ofPrometheus, label) {
				t.Errorf("metric %s has no label %s", s.Metric, label)
			}
		}
	}
}

var (
	sample = regexp.MustCompile(`(?m)^([a-zA-Z_:]+)(?:\{(.*)\})? \S+$`)
	label  = regexp.MustCompile(`([a-zA-Z_]+)="`)

	description = regexp.MustCompile(`^Desc\{fqName: "([a-z_]+)",.*variableLabels: \{([a-z_,]*)\}\}$`)
)

// registered are the metrics of a mode, and their labels, also those that have no value until something happens.
func registered(t *testing.T, mode string) map[string][]string {
	t.Helper()
	registry, ok := metrics.New(metrics.Config{
		Mode:    mode,
		Changes: func() metrics.Changes { return metrics.Changes{} },
		Silence: func() map[string]time.Duration { return nil },
	}).Registry().(*prometheus.Registry)
	if !ok {
		t.Fatal("the registry is of another kind")
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		registry.Describe(descriptions)
		close(descriptions)
	}()
	found := map[string][]string{}
	for d := range descriptions {
		match := description.FindStringSubmatch(d.String())
		if match == nil {
			t.Fatalf("no name in %s", d)
		}
		labels := strings.Split(match[2], ",")
		found[match[1]] = labels
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			found[match[1]+suffix] = append([]string{"le"}, labels...)
		}
	}
	return found
}

// scraped are the metrics of a Sluice that has followed changes and repaired damage, and their labels.
func scraped(t *testing.T, w way) map[string][]string {
	t.Helper()
	n := newNode(t, w)
	n.publish(t, n.Pods[1])
	n.init(t).start(t, n.Node).succeeds(t)
	sluice := n.main(t).start(t, n.Node)
	sluice.awaitReady(t)
	n.wantServed(t, n.Pods[1])
	n.publish(t, n.Pods[2])
	n.wantServed(t, n.Pods[2])
	n.flush(t)
	n.wantServed(t, n.Pods[2])
	a, err := suite.Get(n.Node, "http://"+n.config.Data["metrics-bind-address"]+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, match := range sample.FindAllStringSubmatch(a.Body, -1) {
		labels := found[match[1]]
		for _, l := range label.FindAllStringSubmatch(match[2], -1) {
			labels = append(labels, l[1])
		}
		found[match[1]] = labels
	}
	sluice.stop(t)
	return found
}

// The alerts reach whoever is called with a word of what to do.
func TestAlertsSayWhatToDo(t *testing.T) {
	text := section(t, "## Alerts")
	for _, a := range alerts(t) {
		if !strings.Contains(text, "\n| `"+a.Alert+"` |") {
			t.Errorf("docs/operate.md does not explain %s", a.Alert)
		}
		for _, annotation := range []string{"summary", "description"} {
			if a.Annotations[annotation] == "" {
				t.Errorf("%s has no %s", a.Alert, annotation)
			}
		}
		if link := a.Annotations["runbook_url"]; !strings.HasSuffix(link, "/docs/operate.md#alerts") {
			t.Errorf("%s leads to %q", a.Alert, link)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels["severity"]) {
			t.Errorf("severity %q of %s", a.Labels["severity"], a.Alert)
		}
	}
}

// The component adds what watches Sluice, opens the metrics to it, and is found by what it is looked for.
func TestMonitoringComponent(t *testing.T) {
	for _, overlay := range []string{fresh, kubeadm} {
		dir := kustomization(t, "resources: ["+overlay+"]\ncomponents: [components/monitoring]")
		all := objects(t, judge(t, "", "kustomize", dir))
		plain := kustomized(t, overlay)
		if want := len(plain) + 3; len(all) != want {
			t.Errorf("%s and monitoring have %d objects, want %d", overlay, len(all), want)
		}
		monitor := named(t, all, "PodMonitor", "sluice")
		chosen, _, _ := unstructured.NestedStringMap(monitor.Object, "spec", "selector", "matchLabels")
		for name, value := range chosen {
			if got := podLabels(t, all)[name]; got != value {
				t.Errorf("%s: pods have %s=%q, the PodMonitor wants %q", overlay, name, got, value)
			}
		}
		if overlay == fresh {
			address, _, _ := unstructured.NestedString(named(t, all, "ConfigMap", "sluice").Object, "data", "metrics-bind-address")
			if address != "0.0.0.0:10249" {
				t.Errorf("metrics are at %s", address)
			}
		}
	}
}

func podLabels(t *testing.T, all []*unstructured.Unstructured) map[string]string {
	t.Helper()
	for _, o := range all {
		if o.GetKind() == "DaemonSet" {
			labels, _, err := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
			if err != nil {
				t.Fatal(err)
			}
			return labels
		}
	}
	t.Fatal("no DaemonSet")
	return nil
}

// kustomization makes one that an operator could write beside a copy of manifests/.
func kustomization(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "manifests"))); err != nil {
		t.Fatal(err)
	}
	var content map[string]any
	if err := yaml.Unmarshal([]byte(text), &content); err != nil {
		t.Fatal(err)
	}
	content["apiVersion"], content["kind"] = "kustomize.config.k8s.io/v1beta1", "Kustomization"
	file, err := yaml.Marshal(content)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kustomization.yaml"), file, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
