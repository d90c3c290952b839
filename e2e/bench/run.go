package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	plane := filepath.Join(b.dir, "plane")
	if err := os.Mkdir(plane, 0o700); err != nil {
		return err
	}
	if b.cluster, err = newCluster(ctx, plane, cfg.APIServer, cfg.SharedPorts); err != nil {
		return fmt.Errorf("start cluster, which needs root: %w", err)
	}
	defer func() { err = errors.Join(err, b.cluster.close()) }()
	for _, n := range cfg.Sizes {
		if err := b.size(ctx, n); err != nil {
			return err
		}
		if err := os.WriteFile(cfg.Out, []byte(b.report.markdown()), 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("\n%s\n%s: the whole report, after %v\n", b.report.summary(), cfg.Out, time.Since(b.begin).Round(time.Second))
	return nil
}

// size measures with n services.
func (b *bench) size(ctx context.Context, n int) error {
	b.say("creating services until there are %s", thousands(n))
	if err := b.cluster.grow(ctx, n); err != nil {
		return fmt.Errorf("create services: %w", err)
	}
	for _, backend := range b.cfg.Backends {
		p, err := b.backend(ctx, backend)
		if err != nil {
			return err
		}
		b.report.pairs = append(b.report.pairs, p)
	}
	return nil
}

// backend measures both proxies with one backend.
func (b *bench) backend(ctx context.Context, backend string) (p pair, err error) {
	base, err := newBaseNode(backend)
	if err != nil {
		return p, fmt.Errorf("base line: %w", err)
	}
	defer func() { err = errors.Join(err, base.close()) }()
	if p.kubeProxy, err = b.trial(ctx, kubeProxy(b.cfg), backend, base); err != nil {
		return p, err
	}
	p.sluice, err = b.trial(ctx, sluice(b.cfg, backend), backend, base)
	return p, err
}

func (b *bench) trial(ctx context.Context, c contender, backend string, base *node) (r result, err error) {
	b.say("%s, %s services, %s", backend, thousands(len(b.cluster.services)), c.name)
	dir, err := os.MkdirTemp(b.dir, "trial-")
	if err != nil {
		return r, err
	}
	t := &trial{cfg: b.cfg, contender: c, backend: backend, cluster: b.cluster, base: base, say: b.say}
	if r, err = t.run(ctx, dir); err != nil {
		return r, err
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
