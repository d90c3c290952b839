package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const monitoringDir = "../../manifests/components/monitoring"

// A judge that accepts everything is none: what is shipped passes, and stops passing with one mistake in it.
func TestJudgesSeeMistakes(t *testing.T) {
	for _, c := range []struct{ judge, file, right, wrong string }{
		{"rules", "prometheusrule.yaml", "expr: up", "expr: up up"},
		{"rules", "prometheusrule.yaml", "for: 15m", "for: a while"},
		{"rules", "prometheusrule.yaml", "severity: info", "severity: {}"},
		{"rules", "prometheusrule.yaml", "{{ $labels.node }}", "{{ $label.node }}"},
		{"rules", "prometheusrule.yaml", "annotations:", "anotations:"},
		{"rules", "podmonitor.yaml", "relabelings:", "relabeling:"},
		{"rules", "podmonitor.yaml", "kind: PodMonitor", "kind: ServiceMonitor"},
		{"dashboard", "dashboard.json", `"graphTooltip"`, `"graphTooltips"`},
		{"dashboard", "dashboard.json", `"gridPos"`, `"gridPosition"`},
		{"dashboard", "dashboard.json", `"expr"`, `"expression"`},
		{"dashboard", "dashboard.json", `"graphMode"`, `"graph"`},
	} {
		text, err := os.ReadFile(filepath.Join(monitoringDir, c.file))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := run([]string{c.judge}, bytes.NewReader(text), &out); err != nil {
			t.Fatalf("%s: %v", c.file, err)
		}
		if !strings.Contains(string(text), c.right) {
			t.Fatalf("%s has no %q", c.file, c.right)
		}
		mistaken := strings.Replace(string(text), c.right, c.wrong, 1)
		if err := run([]string{c.judge}, strings.NewReader(mistaken), &out); err == nil {
			t.Errorf("%s is accepted with %q", c.file, c.wrong)
		}
	}
}
