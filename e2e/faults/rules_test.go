package faults

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

const (
	healthzURL = "http://192.168.50.1:10256/healthz"
	metricsURL = "http://127.0.0.1:10249/metrics"
)

// rules are what Sluice has in the kernel.
func (w *world) rules(t *testing.T) string {
	t.Helper()
	rules, err := w.kernel.rules(w)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// awaitRules waits until the kernel holds what it did.
func (w *world) awaitRules(t *testing.T, want string) {
	t.Helper()
	eventually(t, "rules are as they were", func() error {
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(w.rules(t), "\n")); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

// wantFresh checks that the kernel holds what a new process would make of an empty one. It leaves that
// process running.
func (w *world) wantFresh(t *testing.T, flags ...string) {
	t.Helper()
	got := w.rules(t)
	w.stop(t)
	if out, err := w.Node.Run(sluiceBinary, "cleanup"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if left := w.rules(t); left != "" {
		t.Errorf("cleanup left:\n%s", left)
	}
	w.start(t, flags...)
	if diff := cmp.Diff(strings.Split(w.rules(t), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("rules are not those of a fresh start (-fresh +got):\n%s", diff)
	}
}

var get = suite.Get

func (w *world) healthy() error {
	a, err := get(w.Client, healthzURL)
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("healthz is %d: %s", a.Status, a.Body)
	}
	return err
}

// metric is the sum of all series with that name.
func (w *world) metric(t *testing.T, name string) float64 {
	t.Helper()
	a, err := get(w.Node, metricsURL)
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for line := range strings.Lines(a.Body) {
		if series, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && (series == name || strings.HasPrefix(series, name+"{")) {
			// Labels may hold spaces: the value is the last word.
			v, err := strconv.ParseFloat(value[strings.LastIndexByte(value, ' ')+1:], 64)
			if err != nil {
				t.Fatalf("metric %s: %v", line, err)
			}
			sum += v
		}
	}
	return sum
}

// repairs says how often Sluice mended what others did, and why.
func (w *world) repairs(t *testing.T) float64 { return w.metric(t, "sluice_repairs_total") }

// while runs work until the story is told, once more each time it is through.
func while(t *testing.T, work func(ctx context.Context, n int) error) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if err := work(ctx, n); err != nil && ctx.Err() == nil {
				t.Errorf("round %d: %v", n, err)
				break
			}
		}
		done <- n
	}()
	return func() int { cancel(); return <-done }
}
