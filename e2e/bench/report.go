package main

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// report is all that a run found.
type report struct {
	cfg   config
	date  time.Time
	facts []fact
	pairs []pair // by load, then backend
}

// markdown renders the report's section of the document.
func (r report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n\nBy `%s` on %s.\n", modeHeading, r.cfg.section(), r.cfg.command(), r.date.UTC().Format(time.DateOnly))
	b.WriteString("\n| | |\n|---|---|\n")
	for _, f := range r.facts {
		fmt.Fprintf(&b, "| %s | %s |\n", f.name, f.value)
	}
	b.WriteString("\n### Goals\n\n")
	r.goals(&b)
	if r.cfg.Asked {
		r.answers(&b)
	} else {
		r.growth(&b)
		for _, p := range r.pairs {
			r.comparison(&b, p)
		}
	}
	b.WriteString("\n### Method\n\n")
	b.WriteString(r.cfg.method())
	return b.String()
}

// command is what to type for the same run.
func (c config) command() string {
	command := fmt.Sprintf("make bench MODE=%s N=%q ALONE=%q", c.Mode.name, listLoads(c.Loads, false), listLoads(c.Loads, true))
	if len(c.Mode.backends) > 1 {
		command += fmt.Sprintf(" BACKENDS=%q", strings.Join(c.Backends, " "))
	}
	if c.Asked {
		command += " BENCHFLAGS=-asked"
	}
	return command
}

// goals lists them, the unmet ones too.
func (r report) goals(w io.Writer) {
	fmt.Fprint(w, "| backend | services | goal | at most | measured | |\n|---|---:|---|---:|---:|---|\n")
	for _, v := range judge(r.cfg, r.pairs) {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n",
			v.backend, v.load.cell(), v.what, figure(v.limit), figure(v.got), v.word())
	}
}

func (v verdict) word() string {
	if v.met() {
		return "met"
	}
	return "**missed**"
}

// growth shows how one change depends on the number of services.
func (r report) growth(w io.Writer) {
	fmt.Fprint(w, "\n### One change, p50 in ms\n\n| backend | services | kube-proxy | Sluice | ratio |\n|---|---:|---:|---:|---:|\n")
	for _, p := range r.pairs {
		k, s := math.NaN(), p50(p.sluice.changes).Seconds()*1e3
		if !p.load.alone {
			k = p50(p.kubeProxy.changes).Seconds() * 1e3
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", p.backend, p.load.cell(), figure(k), figure(s), figure(s/k))
	}
}

// comparison shows all figures of both proxies.
func (r report) comparison(w io.Writer, p pair) {
	fmt.Fprintf(w, "\n### %s, %s\n\n", p.backend, p.load.title())
	if p.load.alone {
		r.single(w, p.sluice)
		return
	}
	fmt.Fprint(w, "| | kube-proxy | Sluice | ratio |\n|---|---:|---:|---:|\n")
	for _, m := range metrics(r.cfg) {
		k, s := m.of(p.kubeProxy), m.of(p.sluice)
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", m.name, quantity(k, m.unit), quantity(s, m.unit), figure(ratio(s, k)))
	}
	fmt.Fprint(w, "\n| connect() in µs: p50 / p99 | kube-proxy | its base line | ratio | Sluice | its base line | ratio |\n"+
		"|---|---:|---:|---:|---:|---:|---:|\n")
	for _, path := range paths {
		k, s := p.kubeProxy.connects, p.sluice.connects
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", path.name,
			spread(k.all(path.target)), spread(k.all(path.base)), figure(k.excess(path.target, path.base)),
			spread(s.all(path.target)), spread(s.all(path.base)), figure(s.excess(path.target, path.base)))
	}
}

// single shows all figures of one proxy.
func (r report) single(w io.Writer, of result) {
	fmt.Fprintf(w, "| | %s |\n|---|---:|\n", of.proxy)
	for _, m := range metrics(r.cfg) {
		fmt.Fprintf(w, "| %s | %s |\n", m.name, quantity(m.of(of), m.unit))
	}
	fmt.Fprintf(w, "\n| connect() in µs: p50 / p99 | %s | its base line | ratio |\n|---|---:|---:|---:|\n", of.proxy)
	for _, path := range paths {
		c := of.connects
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", path.name,
			spread(c.all(path.target)), spread(c.all(path.base)), figure(c.excess(path.target, path.base)))
	}
}

// spread is median and 99th percentile in microseconds.
func spread(samples []time.Duration) string {
	return figure(p50(samples).Seconds()*1e6) + " / " + figure(p99(samples).Seconds()*1e6)
}

// summary is what a reader at a terminal sees.
func (r report) summary() string {
	var b strings.Builder
	met, all := 0, judge(r.cfg, r.pairs)
	for _, v := range all {
		sign := "MISSED"
		if v.met() {
			sign = "met   "
			met++
		}
		fmt.Fprintf(&b, "%s  %-8s %6s services  %-56s %6s (goal: at most %s)\n",
			sign, v.backend, v.load.cell(), v.what, figure(v.got), figure(v.limit))
	}
	fmt.Fprintf(&b, "%d of %d goals met\n", met, len(all))
	return b.String()
}

// quantity is a figure with its unit, which may be empty.
func quantity(x float64, unit string) string {
	if math.IsNaN(x) {
		return figure(x)
	}
	return strings.TrimSpace(figure(x) + " " + unit)
}

// figure is a number with three significant digits and no exponent.
func figure(x float64) string {
	switch {
	case math.IsNaN(x):
		return "–"
	case x == 0:
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(x))))
	return strconv.FormatFloat(x, 'f', min(max(digits, 0), 4), 64)
}

// thousands is a number with separators.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
