package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// bench is one run of everything.
type bench struct {
	cfg     config
	dir     string // for all that is temporary
	begin   time.Time
	cluster *cluster
	report  report
}

// run measures, and writes the report after each size: a run that is interrupted leaves what it found.
func run(ctx context.Context, cfg config) (err error) {
	b := &bench{cfg: cfg, begin: time.Now()}
	b.report = report{cfg: cfg, date: b.begin}
	if b.report.facts, err = facts(ctx, cfg); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "sluice-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	defer func() { err = errors.Join(err, b.endCluster()) }()
	for _, l := range cfg.Loads {
		if err := b.load(ctx, l); err != nil {
			return err
		}
		if err := b.report.write(cfg.Out); err != nil {
			return err
		}
	}
	fmt.Printf("\n%s\n%s: the whole report, after %v\n", b.report.summary(), cfg.Out, time.Since(b.begin).Round(time.Second))
	return nil
}

// load measures with a load.
func (b *bench) load(ctx context.Context, l load) error {
	if b.cluster == nil || !l.continues(b.cluster.load) {
		if err := b.startCluster(ctx); err != nil {
			return fmt.Errorf("start cluster, which needs root: %w", err)
		}
	}
	b.say("creating services until there are %s", l.title())
	if err := b.cluster.grow(ctx, l); err != nil {
		return fmt.Errorf("create services: %w", err)
	}
	for _, backend := range b.cfg.Backends {
		p, err := b.backend(ctx, l, backend)
		if err != nil {
			return err
		}
		b.report.pairs = append(b.report.pairs, p)
	}
	return nil
}

// startCluster starts a control plane without Services, and ends the one that was there.
func (b *bench) startCluster(ctx context.Context) error {
	if err := b.endCluster(); err != nil {
		return err
	}
	plane, err := os.MkdirTemp(b.dir, "plane-")
	if err != nil {
		return err
	}
	b.cluster, err = newCluster(ctx, plane, b.cfg.APIServer, b.cfg.SharedPorts)
	return err
}

func (b *bench) endCluster() error {
	if b.cluster == nil {
		return nil
	}
	err := b.cluster.close()
	b.cluster = nil
	return err
}

// backend measures both proxies, or Sluice alone, with one backend.
func (b *bench) backend(ctx context.Context, l load, backend string) (p pair, err error) {
	p.load, p.backend = l, backend
	base, err := newBaseNode(tools(backend))
	if err != nil {
		return p, fmt.Errorf("base line: %w", err)
	}
	defer func() { err = errors.Join(err, base.close()) }()
	if !l.alone {
		if p.kubeProxy, err = b.trial(ctx, kubeProxy(b.cfg), backend, base); err != nil {
			return p, err
		}
	}
	p.sluice, err = b.trial(ctx, sluice(b.cfg, backend), backend, base)
	return p, err
}

func (b *bench) trial(ctx context.Context, c contender, backend string, base *node) (r result, err error) {
	b.say("%s, %s, %s", backend, b.cluster.load.title(), c.name)
	dir, err := os.MkdirTemp(b.dir, "trial-")
	if err != nil {
		return r, err
	}
	t := &trial{cfg: b.cfg, contender: c, backend: backend, cluster: b.cluster, base: base, say: b.say}
	if r, err = t.run(ctx, dir); err != nil {
		return r, err
	}
	if b.cfg.Asked {
		b.say("    explain p50 %.0f ms, diff p50 %.2f s, change p50 %.0f ms, with questions %.0f ms", p50(r.answers.explains).Seconds()*1e3,
			p50(r.answers.diffs).Seconds(), p50(r.answers.quiet).Seconds()*1e3, p50(r.answers.asked).Seconds()*1e3)
		return r, nil
	}
	b.say("    start %.2f s, change p50 %.0f ms, CPU of changes %.2f s, of churn %.2f s, memory %.0f MiB, connect last ÷ base line %.2f",
		r.served.Seconds(), p50(r.changes).Seconds()*1e3, r.batchCPU.Seconds(), r.churnCPU.Seconds(), float64(r.peak)/(1<<20),
		r.connects.excess(viaLast, basePath))
	return r, nil
}

// say tells a reader at a terminal how far the run is.
func (b *bench) say(format string, args ...any) {
	fmt.Printf("%6.1fs  %s\n", time.Since(b.begin).Seconds(), fmt.Sprintf(format, args...))
}
