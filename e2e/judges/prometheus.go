package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
	k8syaml "sigs.k8s.io/yaml"
)

var promql = parser.NewParser(parser.Options{})

// rules reads objects of the Prometheus operator and returns the rules among them. Unknown fields and kinds are
// errors, and so is all that Prometheus itself would refuse: expressions, durations, templates of annotations.
func rules(in io.Reader) ([]monitoring.Rule, error) {
	var all []monitoring.Rule
	for decoder := yaml.NewDecoder(in); ; {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		text, err := yaml.Marshal(&document)
		if err != nil {
			return nil, err
		}
		found, err := rulesOf(text)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
}

func rulesOf(document []byte) ([]monitoring.Rule, error) {
	var kind struct{ APIVersion, Kind string }
	if err := k8syaml.Unmarshal(document, &kind); err != nil {
		return nil, err
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "monitoring.coreos.com/v1 PodMonitor":
		return nil, k8syaml.UnmarshalStrict(document, &monitoring.PodMonitor{})
	case "monitoring.coreos.com/v1 PrometheusRule":
		var object monitoring.PrometheusRule
		if err := k8syaml.UnmarshalStrict(document, &object); err != nil {
			return nil, err
		}
		var all []monitoring.Rule
		for _, group := range object.Spec.Groups {
			all = append(all, group.Rules...)
		}
		return all, acceptedByPrometheus(object.Spec)
	}
	return nil, fmt.Errorf("%s %s is no object of the Prometheus operator that Sluice ships", kind.APIVersion, kind.Kind)
}

// acceptedByPrometheus checks the file that the operator makes of a PrometheusRule.
func acceptedByPrometheus(spec monitoring.PrometheusRuleSpec) error {
	text, err := k8syaml.Marshal(spec)
	if err != nil {
		return err
	}
	_, errs := rulefmt.Parse(text, false, model.UTF8Validation, promql, slog.New(slog.DiscardHandler))
	return errors.Join(errs...)
}

// selector is what an expression asks the database for.
type selector struct {
	Metric string   `json:"metric"`
	Labels []string `json:"labels,omitempty"` // those that it chooses by, or that what is found is grouped by
}

// selectors reads a list of expressions and says for each what it asks for.
func selectors(in io.Reader) ([][]selector, error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	var expressions []string
	if err := json.Unmarshal(text, &expressions); err != nil {
		return nil, err
	}
	all := make([][]selector, len(expressions))
	for i, text := range expressions {
		expression, err := promql.ParseExpr(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		parser.Inspect(expression, func(n parser.Node, above []parser.Node) error {
			if v, ok := n.(*parser.VectorSelector); ok {
				all[i] = append(all[i], selector{Metric: v.Name, Labels: labelsOf(v, above)})
			}
			return nil
		})
	}
	return all, nil
}

func labelsOf(v *parser.VectorSelector, above []parser.Node) []string {
	var names []string
	for _, m := range v.LabelMatchers {
		if m.Name != model.MetricNameLabel {
			names = append(names, m.Name)
		}
	}
	for _, n := range above {
		if a, ok := n.(*parser.AggregateExpr); ok && !a.Without {
			names = append(names, a.Grouping...)
		}
	}
	return names
}
