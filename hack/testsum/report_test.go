package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func read(events ...string) (tally, string) {
	var out bytes.Buffer
	r := newReport(&out)
	for _, e := range events {
		r.line([]byte(e))
	}
	return r.tally, out.String()
}

func TestSuiteFailsUnlessEveryTestRanAndPassed(t *testing.T) {
	const pass = `{"Action":"pass","Package":"p","Test":"A"}`
	tests := []struct {
		name   string
		events []string
		want   string
	}{
		{"all passed", []string{pass, `{"Action":"pass","Package":"p"}`}, ""},
		{"nothing ran", []string{`{"Action":"skip","Package":"p"}`}, "no test ran"},
		{"one skipped", []string{pass, `{"Action":"skip","Package":"p","Test":"B"}`}, "1 skipped"},
		{"one failed", []string{pass, `{"Action":"fail","Package":"p","Test":"B"}`, `{"Action":"fail","Package":"p"}`}, "1 failed"},
		{"package broke without a test", []string{pass, `{"Action":"fail","Package":"q"}`}, "1 failed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, _ := read(test.events...)
			var text string
			if err := got.verdict(); err != nil {
				text = err.Error()
			}
			if text != test.want {
				t.Errorf("verdict of %v: got %q, want %q", got, text, test.want)
			}
		})
	}
}

func TestOnlyWhatFailedOrSkippedIsSaid(t *testing.T) {
	_, out := read(
		`{"Action":"output","Package":"p","Test":"A","Output":"quiet\n"}`,
		`{"Action":"pass","Package":"p","Test":"A"}`,
		`{"Action":"output","Package":"p","Test":"B","Output":"loud\n"}`,
		`{"Action":"fail","Package":"p","Test":"B"}`,
		`{"Action":"output","Package":"p","Test":"C","Output":"why not\n"}`,
		`{"Action":"skip","Package":"p","Test":"C"}`,
		`{"Action":"fail","Package":"p","Elapsed":1.5}`,
		`{"Action":"build-output","ImportPath":"q","Output":"q.go:1: broken\n"}`,
		`{"Action":"output","Package":"r","Test":"D","Output":"panic: oops\n"}`,
		`{"Action":"fail","Package":"r"}`,
	)
	if strings.Contains(out, "quiet") {
		t.Errorf("output of a passed test was shown:\n%s", out)
	}
	for _, want := range []string{"loud", "why not", "q.go:1: broken", "panic: oops", "FAIL  p", "FAIL  r"} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func TestHowAFailureBeganIsRepeated(t *testing.T) {
	r := newReport(io.Discard)
	for _, e := range []string{
		`{"Action":"output","Package":"p","Test":"A","Output":"quiet\n"}`,
		`{"Action":"pass","Package":"p","Test":"A"}`,
		`{"Action":"output","Package":"p","Test":"B","Output":"=== RUN   B\n"}`,
		`{"Action":"output","Package":"p","Test":"B","Output":"the reason\n` + strings.Repeat(`a dump\n`, 100) + `"}`,
		`{"Action":"fail","Package":"p","Test":"B"}`,
	} {
		r.line([]byte(e))
	}
	want := "fail: B of p\nthe reason" + strings.Repeat("\na dump", whyLines-1)
	if got := strings.Join(r.why, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSuiteOfAnotherModule(t *testing.T) {
	got := strings.Join(suite{args: []string{"-C", "e2e/judges", "-run", "X", "./..."}}.command(), " ")
	if want := "test -C e2e/judges -json -count=1 -timeout 20m -run X ./..."; got != want {
		t.Errorf("go %s, want go %s", got, want)
	}
}
