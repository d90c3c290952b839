package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// metric is a row of the report.
type metric struct {
	name string
	of   func(result) float64
	unit string
	// goals are the most that Sluice may need, kube-proxy being 1, by backend; none if it is empty.
	goals map[string]float64
}

func both(limit float64) map[string]float64 { return map[string]float64{"nft": limit, "legacy": limit} }

func seconds(of func(result) time.Duration) func(result) float64 {
	return func(r result) float64 { return of(r).Seconds() }
}

func milliseconds(of func(result) time.Duration) func(result) float64 {
	return func(r result) float64 { return of(r).Seconds() * 1e3 }
}

func mebibytes(of func(result) int64) func(result) float64 {
	return func(r result) float64 { return float64(of(r)) / (1 << 20) }
}

// metrics are the rows that compare the proxies with each other.
func metrics(cfg config) []metric {
	return []metric{
		{"start until the last service answers", seconds(func(r result) time.Duration { return r.served }), "s",
			map[string]float64{"nft": 1.0 / 10, "legacy": 0.8}},
		{"start until services without endpoints refuse", seconds(func(r result) time.Duration { return r.refused }), "s", nil},
		{"CPU of the start", seconds(func(r result) time.Duration { return r.startCPU }), "s", nil},
		{"one change, p50", milliseconds(func(r result) time.Duration { return p50(r.changes) }), "ms",
			map[string]float64{"nft": 1.0 / 5, "legacy": 1.0 / 2}},
		{"one change, p99", milliseconds(func(r result) time.Duration { return p99(r.changes) }), "ms", nil},
		{"of that the API write, p50", milliseconds(func(r result) time.Duration { return p50(r.writes) }), "ms", nil},
		{fmt.Sprintf("CPU of %d changes %v apart", cfg.Changes, cfg.Pause), seconds(func(r result) time.Duration { return r.changesCPU }), "s", nil},
		{fmt.Sprintf("CPU of %d changes, %v/s", cfg.Batch, cfg.BatchRate), seconds(func(r result) time.Duration { return r.batchCPU }), "s",
			map[string]float64{"nft": 1.0 / 10, "legacy": 1.0 / 2}},
		{fmt.Sprintf("CPU of a churn of %v at %v/s", cfg.Churn, cfg.ChurnRate), seconds(func(r result) time.Duration { return r.churnCPU }), "s", both(1.0 / 5)},
		{"peak memory of the proxy", mebibytes(func(r result) int64 { return r.peak }), "MiB", both(0.6)},
		{"peak memory of its greatest child", mebibytes(func(r result) int64 { return r.childPeak }), "MiB", nil},
		{"repair after a loss of the rules", repaired, "s", nil},
	}
}

// repaired is NaN for a proxy that did not notice.
func repaired(r result) float64 {
	if r.repair == 0 {
		return math.NaN()
	}
	return r.repair.Seconds()
}

// path is a row of the table of connections.
type path struct {
	name         string
	target, base int
	goal         float64 // the most that p50 may be, the base line's being 1; 0 for none
}

var paths = []path{
	{"first service", viaFirst, basePath, 0},
	{"last service", viaLast, basePath, 1.3},
	{"straight to a pod", toPod, basePod, 1.15},
}

// repairGoal is the most that Sluice may take to serve again after the loss of its rules, in seconds.
const repairGoal = 2

// growthGoal is the most that one change may take with the most services, with the fewest being 1.
const growthGoal = 1.3

// verdict is a goal and what became of it.
type verdict struct {
	backend  string
	services int
	what     string
	got      float64
	limit    float64
}

func (v verdict) met() bool { return v.got <= v.limit }

// pair is both proxies' results for one backend and one number of services.
type pair struct {
	kubeProxy, sluice result
}

// judge compares with all goals.
func judge(cfg config, pairs []pair) []verdict {
	var all []verdict
	for _, p := range pairs {
		v := verdict{backend: p.sluice.backend, services: p.sluice.services}
		for _, m := range metrics(cfg) {
			if limit, ok := m.goals[v.backend]; ok {
				v.what, v.got, v.limit = m.name+" ÷ kube-proxy's", ratio(m.of(p.sluice), m.of(p.kubeProxy)), limit
				all = append(all, v)
			}
		}
		for _, path := range paths {
			if path.goal > 0 {
				v.what, v.got, v.limit = "connect, "+path.name+" ÷ base line's", p.sluice.connects.excess(path.target, path.base), path.goal
				all = append(all, v)
			}
		}
		v.what, v.got, v.limit = "repair after a loss of the rules, s", repaired(p.sluice), repairGoal
		all = append(all, v)
	}
	return append(all, judgeGrowth(pairs)...)
}

// judgeGrowth compares, for each backend, the most services with the fewest. Sizes ascend.
func judgeGrowth(pairs []pair) []verdict {
	few, many := map[string]result{}, map[string]result{}
	for _, p := range pairs {
		backend := p.sluice.backend
		if _, seen := few[backend]; !seen {
			few[backend] = p.sluice
		}
		many[backend] = p.sluice
	}
	var all []verdict
	for _, backend := range slices.Sorted(maps.Keys(few)) {
		a, b := few[backend], many[backend]
		if a.services == b.services {
			continue
		}
		all = append(all, verdict{
			backend:  backend,
			services: b.services,
			what:     fmt.Sprintf("one change, p50 ÷ that with %s services", thousands(a.services)),
			got:      ratio(p50(b.changes).Seconds(), p50(a.changes).Seconds()),
			limit:    growthGoal,
		})
	}
	return all
}
