package faults

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	healthzURL = "http://192.168.50.1:10256/healthz"
	metricsURL = "http://127.0.0.1:10249/metrics"
)

// tool is the name of an iptables program of the world's backend.
func (w *world) tool(f proxy.Family, suffix string) string {
	name := "iptables-"
	if f == proxy.IPv6 {
		name = "ip6tables-"
	}
	return strings.TrimSuffix(name+w.backend+"-"+suffix, "-")
}

// iptables runs a command of iptables on the node in both families.
func (w *world) iptables(t *testing.T, args string) {
	t.Helper()
	for _, f := range proxy.Families {
		if _, err := w.Node.Run(w.tool(f, ""), append([]string{"-w", "60"}, strings.Fields(args)...)...); err != nil {
			t.Fatal(err)
		}
	}
}

var counters = regexp.MustCompile(` \[\d+:\d+\]`)

// rules are Sluice's own chains and all jumps to them: sorted by table and chain, in order within a chain.
func (w *world) rules(t *testing.T) string {
	t.Helper()
	var all []string
	for _, f := range proxy.Families {
		out, err := w.Node.Run(w.tool(f, "save"))
		if err != nil {
			t.Fatal(err)
		}
		table := ""
		for line := range strings.Lines(counters.ReplaceAllString(out, "")) {
			if strings.HasPrefix(line, "*") {
				table = fmt.Sprintf("%v %s ", f, strings.TrimSpace(line[1:]))
			} else if !strings.HasPrefix(line, "#") && strings.Contains(line, "SLUICE-") {
				all = append(all, table+line)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return strings.Compare(chainOf(a), chainOf(b)) })
	return strings.Join(all, "")
}

// chainOf cuts a line of rules after the chain's name.
func chainOf(line string) string {
	words := strings.Fields(line)
	return strings.Join(words[:min(4, len(words))], " ")
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

// get asks by HTTP from a host.
func get(from *lab.Host, url string) (status int, body string, err error) {
	client := &http.Client{Timeout: answerLimit, Transport: &http.Transport{DisableKeepAlives: true, DialContext: from.DialContext}}
	r, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = r.Body.Close() }()
	text, err := io.ReadAll(r.Body)
	return r.StatusCode, string(text), err
}

func (w *world) healthy() error {
	status, body, err := get(w.Client, healthzURL)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("healthz is %d: %s", status, body)
	}
	return err
}

// metric is the sum of all series with that name.
func (w *world) metric(t *testing.T, name string) float64 {
	t.Helper()
	_, body, err := get(w.Node, metricsURL)
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for line := range strings.Lines(body) {
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
