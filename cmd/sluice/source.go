package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/manifest"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
	"github.com/sluice-proxy/sluice/proxy/report"
	"github.com/sluice-proxy/sluice/proxy/watch"
)

// source is where Services come from.
type source struct {
	// run feeds the tracker until ctx ends.
	run func(ctx context.Context)

	// synced is closed when the tracker knows everything.
	synced <-chan struct{}

	// ready waits for the facts of the node without which nothing should be applied.
	ready func(ctx context.Context) error

	event     report.EventFunc
	nodeEvent func(report.Event)
}

func newSource(ctx context.Context, p *proxier) (*source, error) {
	if p.cfg.ManifestDir != "" {
		return newManifestSource(p)
	}
	return newClusterSource(ctx, p)
}

// newManifestSource serves files. There is nobody to tell Events, and the node needs no Node object.
func newManifestSource(p *proxier) (*source, error) {
	files, err := manifest.New(p.cfg.ManifestDir, p.tracker)
	if err != nil {
		return nil, err
	}
	return &source{
		run:    files.Run,
		synced: files.Synced(),
		ready: func(context.Context) error {
			p.health.SetNodeEligible(true)
			return nil
		},
		event:     func(proxy.ServiceName, report.Event) {},
		nodeEvent: func(report.Event) {},
	}, nil
}

func newClusterSource(ctx context.Context, p *proxier) (*source, error) {
	client, err := newClient(ctx, p.cfg)
	if err != nil {
		return nil, err
	}
	cluster := watch.New(watch.Config{
		Client:   client,
		Sink:     p.tracker,
		NodeName: p.cfg.Node.Name,
		SetNode: func(n *corev1.Node) {
			p.node.SetNode(n)
			p.health.SetNodeEligible(nodeinfo.Eligible(n))
		},
		SetServiceCIDRs: p.node.SetServiceCIDRs,
		ResyncPeriod:    p.cfg.ConfigSyncPeriod,
	})
	recorder := newRecorder(client, p.cfg.Node.Name)
	return &source{
		run: func(ctx context.Context) {
			recorder.start(ctx)
			cluster.Run(ctx)
			recorder.stop()
		},
		synced:    cluster.Synced(),
		ready:     p.node.WaitForNode,
		event:     recorder.service,
		nodeEvent: recorder.node,
	}, nil
}
