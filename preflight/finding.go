package preflight

import (
	"cmp"
	"slices"
)

// Severity is how bad a finding is.
type Severity string

// The severities, the worst first.
const (
	Problem Severity = "problem" // Services would not work
	Warning Severity = "warning" // some may not, or something else on the node may not
	OK      Severity = "ok"
)

var severities = []Severity{Problem, Warning, OK}

// Finding is what one look has shown.
type Finding struct {
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"`
	Text     string   `json:"text"`
	Remedy   string   `json:"remedy,omitempty"`
}

// Worst is the worst severity of the findings.
func Worst(findings []Finding) Severity {
	worst := OK
	for _, f := range findings {
		if rank(f.Severity) < rank(worst) {
			worst = f.Severity
		}
	}
	return worst
}

func rank(s Severity) int { return slices.Index(severities, s) }

// sorted has the worst first, and otherwise keeps the order.
func sorted(findings []Finding) []Finding {
	slices.SortStableFunc(findings, func(a, b Finding) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) })
	return findings
}
