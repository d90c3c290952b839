package main

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
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

	// silence is for how long nothing was heard about each resource; nil for files.
	silence func() map[string]time.Duration
}

// origin is what a source reads: files or a cluster, the other is nil.
type origin struct {
	files  *manifest.Source
	client kubernetes.Interface
}

// findOrigin finds out what can be known to be wrong before anything is changed on the node.
func findOrigin(ctx context.Context, cfg *config.Config, sink manifest.Sink) (origin, error) {
	if cfg.ManifestDir != "" {
		files, err := manifest.New(cfg.ManifestDir, sink)
		return origin{files: files}, err
	}
	client, err := newClient(ctx, cfg)
	return origin{client: client}, err
}

func newSource(p *proxier, o origin) *source {
	if o.files != nil {
		return newManifestSource(p, o.files)
	}
	return newClusterSource(p, o.client)
}

// newManifestSource serves files. There is nobody to tell Events, and the node needs no Node object.
func newManifestSource(p *proxier, files *manifest.Source) *source {
	return &source{
		run:    files.Run,
		synced: files.Synced(),
		ready: func(context.Context) error {
			p.health.SetNodeEligible(true)
			return nil
		},
		event:     func(proxy.ServiceName, report.Event) {},
		nodeEvent: func(report.Event) {},
	}
}

func newClusterSource(p *proxier, client kubernetes.Interface) *source {
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
	recorder := newRecorder(client, p.cfg.Node.Name, cluster.ServiceUID)
	return &source{
		run: func(ctx context.Context) {
			recorder.start(ctx)
			cluster.Run(ctx)
			recorder.stop()
		},
		synced:    cluster.Synced(),
		ready:     func(ctx context.Context) error { return p.node.WaitForNode(ctx, cluster.NodeListed()) },
		event:     recorder.service,
		nodeEvent: recorder.node,
		silence:   cluster.Silence,
	}
}
