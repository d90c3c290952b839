package main

import (
	"fmt"
	"time"
)

// repairGoal is the most that Sluice may take to serve again after the loss of its rules, in seconds.
const repairGoal = 2

// growthGoals are the most that one change may take with the most services, with the fewest being 1, by backend.
var growthGoals = goals{"nft": 1.3, "legacy": 1.3, "nftables": 1.5, "ipvs": 1.3}

// startGoal is how many times as long a start may take as it would if it were proportional to the services. Between
// the sizes that it is compared over, the constant part of a start is nothing.
const (
	startGoal = 1.0
	startFrom = 5000
)

// verdict is a goal and what became of it.
type verdict struct {
	backend string
	load    load
	what    string
	got     float64
	limit   float64
}

func (v verdict) met() bool { return v.got <= v.limit }

// pair is both proxies' results for one backend and one load; that of kube-proxy is empty if it did not take part.
type pair struct {
	load              load
	backend           string
	kubeProxy, sluice result
}

// judge compares with all goals.
func judge(cfg config, pairs []pair) []verdict {
	if cfg.Asked {
		return judgeAnswers(pairs)
	}
	var all []verdict
	for _, p := range pairs {
		v := verdict{backend: p.backend, load: p.load}
		for _, m := range metrics(cfg) {
			if limit, ok := m.goals[v.backend]; ok && !p.load.alone {
				v.what, v.got, v.limit = m.name+" ÷ kube-proxy's", ratio(m.of(p.sluice), m.of(p.kubeProxy)), limit
				all = append(all, v)
			}
		}
		for _, path := range paths {
			if limit, ok := path.goals[v.backend]; ok {
				v.what, v.got, v.limit = "connect, "+path.name+" ÷ base line's", p.sluice.connects.excess(path.target, path.base), limit
				all = append(all, v)
			}
		}
		if !cfg.Mode.slow { // there a second means nothing
			v.what, v.got, v.limit = "repair after a loss of the rules, s", repaired(p.sluice), repairGoal
			all = append(all, v)
		}
	}
	for _, backend := range cfg.Backends {
		all = append(all, judgeGrowth(backend, pairs)...)
	}
	return all
}

// judgeGrowth compares the most services with fewer, all with the same number of endpoints.
func judgeGrowth(backend string, pairs []pair) []verdict {
	var few, middle, many *pair
	for i := range pairs {
		p := &pairs[i]
		if p.backend != backend || p.load.endpoints != defaultEndpoints {
			continue
		}
		if few == nil || p.load.services < few.load.services {
			few = p
		}
		if p.load.services == startFrom {
			middle = p
		}
		if many == nil || p.load.services > many.load.services {
			many = p
		}
	}
	if few == many {
		return nil
	}
	all := []verdict{{
		backend: backend,
		load:    many.load,
		what:    fmt.Sprintf("one change, p50 ÷ that with %s", few.load.title()),
		got:     ratio(p50(many.sluice.changes).Seconds(), p50(few.sluice.changes).Seconds()),
		limit:   growthGoals[backend],
	}}
	if backend == "nftables" && middle != nil && middle != many {
		perService := func(p *pair) time.Duration { return p.sluice.served / time.Duration(p.load.services) }
		all = append(all, verdict{
			backend: backend,
			load:    many.load,
			what:    fmt.Sprintf("start, per service ÷ that with %s", middle.load.title()),
			got:     ratio(perService(many).Seconds(), perService(middle).Seconds()),
			limit:   startGoal,
		})
	}
	return all
}
