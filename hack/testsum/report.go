package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// event is a line of go test -json, as `go doc test2json` describes it.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

// tally counts what a suite did. A test with subtests counts by its subtests and itself.
type tally struct {
	passed, failed, skipped int
	brokenPackages          int // which failed without a failing test: build errors, crashes
	took                    time.Duration
}

func (t tally) String() string {
	return fmt.Sprintf("%5d passed  %d failed  %d skipped  %s", t.passed, t.failed+t.brokenPackages, t.skipped, t.took.Round(time.Second))
}

// verdict is nil if the suite tested all that it should.
func (t tally) verdict() error {
	switch {
	case t.failed+t.brokenPackages > 0:
		return fmt.Errorf("%d failed", t.failed+t.brokenPackages)
	case t.skipped > 0:
		return fmt.Errorf("%d skipped", t.skipped)
	case t.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}

// report turns events into lines for a reader.
type report struct {
	w      io.Writer
	tally  tally
	tests  map[string]int      // by package: tests that ended
	failed map[string]bool     // by package: a test failed
	output map[string][]string // by package and test: what it said; dropped when it passes
	why    []string            // how what failed or was skipped began, to be repeated at the end
}

// A log may be cut at its start, so how each failure began is repeated at its end: that many lines, that long.
const (
	whyLines  = 12
	whyLength = 400
)

func newReport(w io.Writer) *report {
	return &report{w: w, tests: map[string]int{}, failed: map[string]bool{}, output: map[string][]string{}}
}

// line takes one line of output. What is not an event is passed on as it is.
func (r *report) line(b []byte) {
	var e event
	if err := json.Unmarshal(b, &e); err != nil {
		fmt.Fprintf(r.w, "%s\n", b)
		return
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "output":
		key := e.Package + " " + e.Test
		r.output[key] = append(r.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
	}
}

func (r *report) endTest(e event) {
	r.tests[e.Package]++
	switch e.Action {
	case "pass":
		r.tally.passed++
	case "fail":
		r.tally.failed++
		r.failed[e.Package] = true
	case "skip":
		r.tally.skipped++
	}
	if e.Action != "pass" {
		r.say(e.Package + " " + e.Test)
		r.remember(e)
	}
	delete(r.output, e.Package+" "+e.Test)
}

// endPackage ignores a skipped package: it has no test files, or none that match.
func (r *report) endPackage(e event) {
	n := r.tests[e.Package]
	switch {
	case e.Action == "fail":
		if !r.failed[e.Package] {
			r.tally.brokenPackages++
			r.sayAll(e.Package)
		}
		fmt.Fprintf(r.w, "FAIL  %-40s %4d tests  %6.1fs\n", shorten(e.Package), n, e.Elapsed)
	case n > 0:
		fmt.Fprintf(r.w, "ok    %-40s %4d tests  %6.1fs\n", shorten(e.Package), n, e.Elapsed)
	}
	delete(r.output, e.Package+" ")
}

func (r *report) say(key string) {
	for _, s := range r.output[key] {
		fmt.Fprint(r.w, s)
	}
}

// remember keeps how a failure began.
func (r *report) remember(e event) {
	text := strings.Join(r.output[e.Package+" "+e.Test], "")
	lines := []string{fmt.Sprintf("%s: %s of %s", e.Action, e.Test, shorten(e.Package))}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "=== ") {
			continue
		}
		if len(lines) > whyLines {
			break
		}
		line = strings.TrimSuffix(line, "\n")
		lines = append(lines, line[:min(len(line), whyLength)])
	}
	r.why = append(r.why, strings.Join(lines, "\n"))
}

// sayAll writes what was left unsaid in a package that broke: a panic, a race, tests that never ended.
func (r *report) sayAll(pkg string) {
	for key := range r.output {
		if strings.HasPrefix(key, pkg+" ") {
			r.say(key)
		}
	}
}

func shorten(pkg string) string {
	return strings.TrimPrefix(pkg, "github.com/sluice-proxy/sluice/")
}
