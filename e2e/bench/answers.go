package main

import (
	"fmt"
	"io"
	"time"
)

// explainGoal is the most that an explanation may take, in ms, by backend. It has to look into the kernel as well; the kernel
// gives iptables-legacy nothing smaller than a table, so that there only what should be counts. An emulated processor has no goal.
var explainGoal = goals{"nft": 50, "nftables": 50}
var intentGoal = goals{"nft": 50, "legacy": 50, "nftables": 50}

// disturbGoal is how many times as long a change may take in a churn while the proxy is asked.
const disturbGoal = 1.2

// answerMetrics are the rows of a report of questions.
func answerMetrics() []metric {
	return []metric{
		{"explain, p50", milliseconds(func(r result) time.Duration { return p50(r.answers.explains) }), "ms", explainGoal},
		{"explain, p99", milliseconds(func(r result) time.Duration { return p99(r.answers.explains) }), "ms", nil},
		{"explain --intent-only, p50", milliseconds(func(r result) time.Duration { return p50(r.answers.intents) }), "ms", intentGoal},
		{"diff in the churn, p50", seconds(func(r result) time.Duration { return p50(r.answers.diffs) }), "s", nil},
		{"diffs in the churn", func(r result) float64 { return float64(len(r.answers.diffs)) }, "", nil},
		{"one change in a quiet churn, p50", milliseconds(func(r result) time.Duration { return p50(r.answers.quiet) }), "ms", nil},
		{"one change in a churn with questions, p50", milliseconds(func(r result) time.Duration { return p50(r.answers.asked) }), "ms", nil},
		{"one change in a quiet churn, p99", milliseconds(func(r result) time.Duration { return p99(r.answers.quiet) }), "ms", nil},
		{"one change in a churn with questions, p99", milliseconds(func(r result) time.Duration { return p99(r.answers.asked) }), "ms", nil},
		{"CPU of the proxy in a quiet churn", seconds(func(r result) time.Duration { return r.answers.quietCPU }), "s", nil},
		{"CPU of the proxy in a churn with questions", seconds(func(r result) time.Duration { return r.answers.askedCPU }), "s", nil},
	}
}

// judgeAnswers compares with the goals of questions.
func judgeAnswers(pairs []pair) []verdict {
	var all []verdict
	for _, p := range pairs {
		v := verdict{backend: p.backend, load: p.load}
		for _, m := range answerMetrics() {
			if limit, ok := m.goals[p.backend]; ok {
				v.what, v.got, v.limit = m.name+", "+m.unit, m.of(p.sluice), limit
				all = append(all, v)
			}
		}
		a := p.sluice.answers
		v.what, v.limit = "one change in a churn with questions, p50 ÷ without", disturbGoal
		v.got = ratio(p50(a.asked).Seconds(), p50(a.quiet).Seconds())
		all = append(all, v)
	}
	return all
}

// answers shows all figures of questions.
func (r report) answers(w io.Writer) {
	for _, p := range r.pairs {
		fmt.Fprintf(w, "\n### %s, %s\n\n| | %s |\n|---|---:|\n", p.backend, p.load.title(), p.sluice.proxy)
		for _, m := range answerMetrics() {
			fmt.Fprintf(w, "| %s | %s |\n", m.name, quantity(m.of(p.sluice), m.unit))
		}
	}
}

// methodOfAnswers says how the figures of questions came about.
func (c config) methodOfAnswers() string {
	return items([]string{
		"A real etcd and kube-apiserver, one node and its objects as described for the mode itself; only Sluice takes part. " + c.Mode.asking,
		fmt.Sprintf("explain: the whole command, from its start to its end, for %d Services one after the other, with the look into the kernel that says whether it agrees.", askedServices),
		fmt.Sprintf("Churn: %v changes a second for %v, each replacing an endpoint of another Service. One of %d is timed, from sending the API write until a connection arrives at the new endpoint.",
			c.ChurnRate, c.Churn, timedOf),
		fmt.Sprintf("With questions: the same, while `sluice diff` runs again and again without a pause, and `sluice explain` once in %v. "+
			"Every diff has to find nothing, and every explain a kernel that agrees: else there is no report.", askEvery),
		"CPU: user and system time of the proxy and its children, until it is calm, without that of the commands.",
	})
}
