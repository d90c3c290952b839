package manifests

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

var chart = filepath.Join(root, "charts", "sluice")

// facts are the values that everybody must give.
const facts = `
apiServer: https://192.0.2.1:6443
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
`

// charted are the objects of the chart.
func charted(t *testing.T, values string) []*unstructured.Unstructured {
	t.Helper()
	return objects(t, judge(t, values, "helm", chart))
}

// withoutHelm takes away what a chart adds to every object, and what it adds so that a change of the configuration counts.
func withoutHelm(t *testing.T, all []*unstructured.Unstructured) []*unstructured.Unstructured {
	t.Helper()
	for _, o := range all {
		labels := o.GetLabels()
		for _, name := range []string{"helm.sh/chart", "app.kubernetes.io/managed-by"} {
			if labels[name] == "" {
				t.Errorf("%s %s has no label %s", o.GetKind(), o.GetName(), name)
			}
			delete(labels, name)
		}
		o.SetLabels(labels)
		if o.GetKind() == "DaemonSet" {
			unstructured.RemoveNestedField(o.Object, "spec", "template", "metadata", "annotations")
		}
	}
	return inOrder(all)
}

func TestChartIsWhatKustomizeMakes(t *testing.T) {
	for _, mode := range modes(t) {
		overlay := "overlays/" + mode
		if mode == "auto" {
			overlay = fresh
		}
		facts := facts + "image: {repository: sluice, tag: unset}\nmode: " + mode
		dir := kustomization(t, "resources: ["+overlay+"]\nimages: [{name: sluice, newTag: unset}]")
		text := string(judge(t, "", "kustomize", dir))
		want := objects(t, []byte(strings.NewReplacer("https://API-SERVER:6443", "https://192.0.2.1:6443", "POD-CIDR", "10.244.0.0/16,fd00:10:244::/56").Replace(text)))
		if diff := cmp.Diff(asText(t, inOrder(want)), asText(t, withoutHelm(t, charted(t, facts)))); diff != "" {
			t.Errorf("mode %s (-kustomize +chart):\n%s", mode, diff)
		}
	}
}

// asText is what is easy to compare.
func asText(t *testing.T, all []*unstructured.Unstructured) []string {
	t.Helper()
	var lines []string
	for _, o := range all {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.Split(string(text), "\n")...)
	}
	return lines
}

func TestChartBringsTheMonitoringComponent(t *testing.T) {
	on := "metrics: {bindAddress: 0.0.0.0:10249, podMonitor: true, prometheusRule: true, dashboard: true, labels: {release: mine}}"
	dir := kustomization(t, "resources: ["+fresh+"]\ncomponents: [components/monitoring]")
	want := objects(t, judge(t, "", "kustomize", dir))
	got := withoutHelm(t, charted(t, facts+on))
	for kind, name := range map[string]string{"PodMonitor": "sluice", "PrometheusRule": "sluice", "ConfigMap": "sluice-dashboard"} {
		object := named(t, got, kind, name)
		labels := object.GetLabels()
		if labels["release"] != "mine" {
			t.Errorf("labels of %s: %v", kind, labels)
		}
		delete(labels, "release")
		object.SetLabels(labels)
		if diff := cmp.Diff(named(t, want, kind, name), object); diff != "" {
			t.Errorf("%s (-kustomize +chart):\n%s", kind, diff)
		}
	}
}

// modes are what --mode offers.
func modes(t *testing.T) []string {
	t.Helper()
	help, err := exec.Command(sluiceBinary, "--help").CombinedOutput()
	match := regexp.MustCompile(`How Services reach the kernel: ([a-z, ]+)\.`).FindSubmatch(help)
	if err != nil || match == nil {
		t.Fatalf("no modes (%v) in\n%s", err, help)
	}
	return strings.Split(string(match[1]), ", ")
}

func TestChartRefusesWhatCannotBeMeant(t *testing.T) {
	for _, c := range []struct{ values, complaint string }{
		{"", "/apiServer"},
		{"apiServer: https://192.0.2.1:6443", "/clusterCIDR"},
		{"apiServer: 192.0.2.1\nclusterCIDR: 10.244.0.0/16", "/apiServer"},
		{facts + "clusterCidr: 10.244.0.0/16", "clusterCidr"},
		{facts + "mode: userspace", "/mode"},
		{facts + "image: {name: sluice}", "name"},
		{facts + "maxUnavailable: 0%", "/maxUnavailable"},
		{facts + "metrics: {bindAddress: 0.0.0.0}", "/metrics/bindAddress"},
		{facts + "extraArgs: [v=2]", "/extraArgs/0"},
	} {
		_, err := judged(c.values, "helm", chart)
		if err == nil || !strings.Contains(err.Error(), c.complaint) {
			t.Errorf("values %q: %v, want a word about %s", c.values, err, c.complaint)
		}
	}
}

// allValues uses every value that is not about monitoring.
const allValues = facts + `
mode: nftables
image: {repository: registry.example.com/sluice, tag: v1.0.0, pullPolicy: Always}
imagePullSecrets: [registry]
extraArgs: ["--nodeport-addresses=primary", "-v=2"]
init: {extraArgs: ["--conntrack-min=262144"]}
maxUnavailable: 3
resources: {requests: {cpu: 100m, memory: 200Mi}}
nodeSelector: {service-proxy: sluice}
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
podAnnotations: {a: b}
podLabels: {c: d}
`

func TestEveryValueOfTheChartCounts(t *testing.T) {
	text := string(judge(t, allValues, "helm", chart))
	for _, part := range []string{
		"image: \"registry.example.com/sluice:v1.0.0\"", "imagePullPolicy: Always", "- name: registry", "- \"--nodeport-addresses=primary\"", "- \"-v=2\"",
		"- \"--conntrack-min=262144\"", "maxUnavailable: 3", "memory: 200Mi", "service-proxy: sluice", "nodeAffinity:", "a: b", "c: d", "mode: \"nftables\"",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
	changed := fmt.Sprint(podAnnotations(t, facts+"mode: nftables")) != fmt.Sprint(podAnnotations(t, facts+"mode: iptables"))
	if !changed {
		t.Error("a change of the configuration does not start the pods again")
	}
}

func podAnnotations(t *testing.T, values string) map[string]string {
	t.Helper()
	daemonSet := named(t, charted(t, values), "DaemonSet", "sluice")
	annotations, _, err := unstructured.NestedStringMap(daemonSet.Object, "spec", "template", "metadata", "annotations")
	if err != nil {
		t.Fatal(err)
	}
	return annotations
}
