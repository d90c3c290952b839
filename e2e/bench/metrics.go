package main

import (
	"fmt"
	"math"
	"time"
)

// metric is a row of the report.
type metric struct {
	name  string
	of    func(result) float64
	unit  string
	goals goals // kube-proxy being 1
}

// goals are the most that Sluice may need of something, by backend. Without one there is no goal.
type goals map[string]float64

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
	all := []metric{
		{"start until the API server's ClusterIP takes connections", seconds(func(r result) time.Duration { return r.first }), "s",
			goals{"ipvs": 1.0 / 5}},
		{"start until the last service answers", seconds(func(r result) time.Duration { return r.served }), "s",
			goals{"nft": 1.0 / 10, "legacy": 0.8, "nftables": 1.0 / 5, "ipvs": 1.0 / 4}},
		{"start until services without endpoints refuse", seconds(func(r result) time.Duration { return r.refused }), "s", nil},
		{"CPU of the start", seconds(func(r result) time.Duration { return r.startCPU }), "s", nil},
		{"one change, p50", milliseconds(func(r result) time.Duration { return p50(r.changes) }), "ms",
			goals{"nft": 1.0 / 5, "legacy": 1.0 / 2, "nftables": 1.0 / 20, "ipvs": 1.0 / 20}},
		{"one change, p99", milliseconds(func(r result) time.Duration { return p99(r.changes) }), "ms", nil},
		{"of that the API write, p50", milliseconds(func(r result) time.Duration { return p50(r.writes) }), "ms", nil},
		{fmt.Sprintf("CPU of %d changes %v apart", cfg.Changes, cfg.Pause), seconds(func(r result) time.Duration { return r.changesCPU }), "s",
			goals{"ipvs": 1.0 / 50}},
	}
	if cfg.Mode.slow {
		all = append(all, metric{fmt.Sprintf("CPU of %v without changes", cfg.Idle), seconds(func(r result) time.Duration { return r.idleCPU }), "s",
			goals{"ipvs": 1.0 / 10}})
	} else {
		all = append(all, metric{fmt.Sprintf("CPU of %d changes, %v/s", cfg.Batch, cfg.BatchRate), seconds(func(r result) time.Duration { return r.batchCPU }), "s",
			goals{"nft": 1.0 / 10, "legacy": 1.0 / 2, "nftables": 1.0 / 50}},
			metric{fmt.Sprintf("CPU of a churn of %v at %v/s", cfg.Churn, cfg.ChurnRate), seconds(func(r result) time.Duration { return r.churnCPU }), "s",
				goals{"nft": 1.0 / 5, "legacy": 1.0 / 5}})
	}
	return append(all,
		metric{"peak memory of the proxy", mebibytes(func(r result) int64 { return r.peak }), "MiB",
			goals{"nft": 0.6, "legacy": 0.6, "nftables": 0.5, "ipvs": 0.7}},
		metric{"peak memory of its greatest child", mebibytes(func(r result) int64 { return r.childPeak }), "MiB", nil},
		metric{"repair after a loss of the rules", repaired, "s", nil},
	)
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
	goals        goals // for p50, the base line's being 1
}

var paths = []path{
	{"first service", viaFirst, basePath, nil},
	{"last service", viaLast, basePath, goals{"nft": 1.3, "legacy": 1.3, "nftables": 1.15}},
	{"straight to a pod", toPod, basePod, goals{"nft": 1.15, "legacy": 1.15, "nftables": 1.15}},
}
