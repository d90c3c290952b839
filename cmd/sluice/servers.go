package main

import (
	"context"

	"github.com/sluice-proxy/sluice/proxy/metrics"
	"github.com/sluice-proxy/sluice/proxy/report"
)

// serveHealth answers health checks of the node until ctx ends. An error ends the proxy.
func (p *proxier) serveHealth(ctx context.Context) error {
	err := p.health.Serve(ctx, p.cfg.HealthzAddr, p.cfg.HardFail)
	return p.hardFailure("FailedToStartProxierHealthcheck", err)
}

// serveMetrics answers on the metrics address until ctx ends. An error ends the proxy.
func (p *proxier) serveMetrics(ctx context.Context) error {
	err := p.metrics.Serve(ctx, metrics.ServerConfig{
		Addr: p.cfg.MetricsAddr, HardFail: p.cfg.HardFail, Mode: p.cfg.Mode.name, Profiling: p.cfg.Profiling,
	})
	return p.hardFailure("FailedToStartMetricServer", err)
}

func (p *proxier) hardFailure(reason string, err error) error {
	if err != nil {
		p.nodeEvents(report.Event{Warning: true, Reason: reason, Action: "StartKubeProxy", Note: err.Error()})
	}
	return err
}
