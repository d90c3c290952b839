package main

import (
	"flag"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden report")

// repeat is n times the same sample.
func repeat(d time.Duration, n int) []time.Duration {
	samples := make([]time.Duration, n)
	for i := range samples {
		samples[i] = d
	}
	return samples
}

// made is a result whose figures are all in proportion to a unit.
func made(proxy string, services int, unit time.Duration) result {
	r := result{
		proxy:  proxy,
		served: 10 * unit, refused: 11 * unit, startCPU: 5 * unit,
		changes: repeat(2*unit, 20), writes: repeat(5*time.Millisecond, 20),
		first: unit, changesCPU: 3 * unit, batchCPU: 20 * unit, churnCPU: 40 * unit, idleCPU: unit,
		peak: int64(unit / 10), childPeak: int64(unit / 20), repair: 3 * unit,
	}
	r.answers = answers{
		explains: repeat(unit/10, 100), intents: repeat(unit/20, 100), diffs: repeat(5*unit, 12),
		quiet: repeat(unit, 60), asked: repeat(unit*3/2, 60), quietCPU: 2 * unit, askedCPU: 6 * unit,
	}
	for target := range r.connects {
		r.connects[target] = [][]time.Duration{repeat(20*time.Microsecond, 98), repeat(time.Millisecond, 2), repeat(20*time.Microsecond, 1)}
	}
	last := repeat(time.Duration(services)*25*time.Nanosecond, 50)
	r.connects[viaLast] = [][]time.Duration{last, repeat(time.Hour, 1), last}
	return r
}

func madeReport(t *testing.T, args ...string) report {
	cfg, err := parseFlags(args)
	if err != nil {
		t.Fatal(err)
	}
	r := report{
		cfg:   cfg,
		date:  time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		facts: []fact{{"kernel", "6.1"}, {"CPUs", "2 × some"}},
	}
	for i, l := range cfg.Loads {
		p := pair{load: l, backend: cfg.Backends[0], sluice: made("Sluice", l.services, 100*time.Millisecond)}
		if !l.alone {
			p.kubeProxy = made("kube-proxy", l.services, time.Duration(i+1)*time.Second)
		}
		r.pairs = append(r.pairs, p)
	}
	r.pairs[0].kubeProxy.repair = 0 // it did not notice
	return r
}

// inIPTables and inNFTables are the flags of made reports.
var (
	inIPTables = []string{"-n", "1000 10000", "-backends", "nft"}
	inNFTables = []string{"-mode", "nftables", "-n", "5000", "-alone", "30000 5000x50"}
	inIPVS     = []string{"-mode", "ipvs", "-n", "500", "-alone", ""}
	asked      = []string{"-mode", "nftables", "-asked"}
)

func TestReport(t *testing.T) {
	const golden = "testdata/report.golden"
	got := ""
	for _, args := range [][]string{inNFTables, inIPTables, inIPVS, asked} {
		r := madeReport(t, args...)
		got = document(got, r.cfg.section(), r.markdown())
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("report; run with -update if it should be so (-want +got)\n%s", diff)
	}
}

func TestTablesAreWhole(t *testing.T) {
	columns := 0
	for line := range strings.Lines(madeReport(t, inIPTables...).markdown() + madeReport(t, inNFTables...).markdown() + madeReport(t, asked...).markdown()) {
		n := strings.Count(line, "|")
		if columns > 0 && n > 0 && n != columns {
			t.Errorf("%d columns in a table of %d: %s", n, columns, line)
		}
		columns = n
	}
}

func TestDocumentReplacesOneSection(t *testing.T) {
	a, b, c := "## Mode a\n\nA\n", "## Mode b\n\nB\n\n### Part\n", "## Mode a\n\nC\n"
	both := document(document("", "b", b), "a", a)
	if want := introduction + "\n" + a + "\n" + b; both != want {
		t.Errorf("two sections (-want +got)\n%s", cmp.Diff(want, both))
	}
	if got, want := document(both, "a", c), introduction+"\n"+c+"\n"+b; got != want {
		t.Errorf("replaced (-want +got)\n%s", cmp.Diff(want, got))
	}
}

func TestSummaryTellsMissedGoals(t *testing.T) {
	r := madeReport(t, inIPTables...)
	got := r.summary()
	missed := strings.Count(got, "MISSED")
	// Through the last of 10,000 services a connection takes 250 µs, of 1,000 25 µs, and 20 µs without one.
	if missed != 1 || !strings.Contains(got, "16 of 17 goals met") {
		t.Errorf("want one of 17 goals missed:\n%s", got)
	}
}

func TestExcessIsTakenRoundByRound(t *testing.T) {
	var c connects
	// The machine slows down four times after the first of three rounds; one round is spoiled.
	c[toPod] = [][]time.Duration{repeat(15, 3), repeat(60, 1), repeat(9000, 5)}
	c[basePod] = [][]time.Duration{repeat(10, 3), repeat(40, 9), repeat(40, 1)}
	if got := c.excess(toPod, basePod); got != 1.5 {
		t.Errorf("got %v, want 1.5", got)
	}
	if got := (connects{}).excess(toPod, basePod); !math.IsNaN(got) {
		t.Errorf("got %v without samples, want not a number", got)
	}
}

func TestGoalsAreJudgedPerBackend(t *testing.T) {
	var pairs []pair
	for _, backend := range []string{"nft", "legacy", "nftables"} {
		pairs = append(pairs, pair{backend: backend, kubeProxy: made("kube-proxy", 1000, time.Second), sluice: made("Sluice", 1000, time.Second/3)})
	}
	met := map[string]int{}
	for _, v := range judge(config{Mode: &modes[0]}, pairs) {
		if v.met() {
			met[v.backend]++
		}
	}
	// A third is little enough memory and a fast repair for all, and the last of 1,000 services is near, but not near
	// enough for nftables; legacy allows a third for start, change and CPU of changes as well.
	want := map[string]int{"nft": 4, "legacy": 7, "nftables": 3}
	if diff := cmp.Diff(want, met); diff != "" {
		t.Errorf("goals met (-want +got)\n%s", diff)
	}
}

func TestGrowthComparesMostWithFewestServices(t *testing.T) {
	var pairs []pair
	for i, n := range []int{10, 20, 30} {
		for _, backend := range []string{"nft", "legacy"} {
			pairs = append(pairs, pair{load: load{services: n, endpoints: 2}, backend: backend, sluice: made("Sluice", n, time.Duration(i+1)*time.Second)})
		}
	}
	// One with another number of endpoints is no measure of growth.
	pairs = append(pairs, pair{load: load{services: 40, endpoints: 50}, backend: "nft", sluice: made("Sluice", 40, time.Hour)})
	for _, backend := range []string{"nft", "legacy"} {
		got := judgeGrowth(backend, pairs)
		if len(got) != 1 || got[0].load.services != 30 || got[0].got != 3 || got[0].met() {
			t.Errorf("%s: got %+v, want three times as much at 30, which is too much", backend, got)
		}
	}
	if got := judgeGrowth("nft", pairs[:2]); len(got) != 0 {
		t.Errorf("got %+v for one size", got)
	}
}

func TestStartOfNFTablesMayNotGrowFasterThanServices(t *testing.T) {
	var pairs []pair
	for _, l := range []struct {
		n    int
		unit time.Duration
	}{{1000, time.Second}, {5000, 2 * time.Second}, {30000, 15 * time.Second}} {
		pairs = append(pairs, pair{load: load{services: l.n, endpoints: 2}, backend: "nftables", sluice: made("Sluice", l.n, l.unit)})
	}
	got := judgeGrowth("nftables", pairs)
	if len(got) != 2 || got[1].got != 1.25 || got[1].met() {
		t.Errorf("got %+v, want a second one: 1.25 times as much for each service, which is too much", got)
	}
}

func TestWhatWasNotMeasuredIsNotMet(t *testing.T) {
	if (verdict{got: math.NaN(), limit: 1}).met() {
		t.Error("a goal without a measurement is met")
	}
}

func TestFigure(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 0.0123456: "0.0123", 0.1: "0.100", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 12345.6: "12346", -1.5: "-1.50", 0.00001: "0.0000",
	} {
		if got := figure(x); got != want {
			t.Errorf("%v: got %s, want %s", x, got, want)
		}
	}
	if got := figure(math.NaN()); got != "–" {
		t.Errorf("not a number: %s", got)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 10000: "10,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	c, err := parseFlags([]string{"-n", "50,100", "-alone", "100x7", "-backends", "legacy"})
	if err != nil {
		t.Fatal(err)
	}
	want := []load{{50, 2, false}, {100, 2, false}, {100, 7, true}}
	if diff := cmp.Diff(want, c.Loads, cmp.AllowUnexported(load{})); diff != "" {
		t.Error(diff)
	}
	for mode, loads := range map[string]int{"iptables": 3, "nftables": 5, "ipvs": 3} {
		if c, err := parseFlags([]string{"-mode", mode}); err != nil || len(c.Loads) != loads {
			t.Errorf("mode %s: got %v, %v, want %d loads", mode, c.Loads, err, loads)
		}
	}
	for _, bad := range [][]string{
		{"-asked", "-n", "50"}, {"-n", "x"}, {"-n", "15"}, {"-n", "0"}, {"-n", ""}, {"-n", "100000"}, {"-n", "100x"}, {"-n", "100x1"}, {"-n", "100x101"}, {"-alone", "y"},
		{"-mode", "ebpf"}, {"-mode", "nftables", "-backends", "nft"},
		{"-backends", "ipset"}, {"-shared-ports", "-1"}, {"-shared-ports", "100000"},
		{"-changes", "0"}, {"-batch", "0"}, {"-connects", "1"}, {"-pause", "0"}, {"-churn", "-1s"}, {"-batch-rate", "0"}, {"-churn-rate", "-1"},
	} {
		if _, err := parseFlags(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestCPUModel(t *testing.T) {
	if got := cpuModel("processor\t: 0\nmodel name\t: Some CPU @ 1: 2\nprocessor: 1\nmodel name: other\n"); got != "Some CPU @ 1: 2" {
		t.Errorf("got %q", got)
	}
	if got := cpuModel("processor\t: 0\n"); got != "unknown model" {
		t.Errorf("got %q", got)
	}
}
