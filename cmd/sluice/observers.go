package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/iptables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/healthcheck"
	"github.com/sluice-proxy/sluice/proxy/loop"
	"github.com/sluice-proxy/sluice/proxy/metrics"
	"github.com/sluice-proxy/sluice/proxy/relay"
	"github.com/sluice-proxy/sluice/proxy/report"
)

// observers are told of each step of the loop in this order: what is quick comes first.
func (p *proxier) observers() []loop.Observer {
	all := []loop.Observer{
		metricsObserver{metrics: p.metrics},
		healthObserver{health: p.health},
		p.questions,
		p.history,
		reportObserver{reporter: report.New(p.events)},
		flowsObserver{cleaner: conntrack.NewCleaner(&conntrack.Kernel{}), metrics: p.metrics, turns: new([len(proxy.Families)]turn)},
		newFormerObserver(p.formers, families(p.dataplanes)),
	}
	if p.mode.name != iptables.Name {
		all = append(all, relayObserver{relay: p.relay})
	}
	return all
}

// changes is the tracker's state in the words of the metrics.
func (p *proxier) changes() metrics.Changes { return metrics.Changes(p.tracker.Stats()) }

// remembered has what counts the clients of session affinity, in modes that can tell.
func (p *proxier) remembered() map[proxy.Family]func() (n, limit int, err error) {
	read := map[proxy.Family]func() (n, limit int, err error){}
	for f, dataplane := range p.dataplanes {
		if r, ok := dataplane.(proxy.Rememberer); ok {
			read[f] = r.Clients
		}
	}
	return read
}

// listenFailed reports a health check port of a Service that something else on the node uses.
func (p *proxier) listenFailed(service proxy.ServiceName, port uint16, err error) {
	p.events(service, report.Event{
		Warning: true, Reason: "FailedToStartServiceHealthcheck", Action: "Listen",
		Note: fmt.Sprintf("health check node port %d is not served on this node: %v", port, err),
	})
}

// deaf ignores everything; observers embed it for what does not concern them.
type deaf struct{}

func (deaf) Queued(proxy.Family)                                         {}
func (deaf) Doubted(proxy.Family, string)                                {}
func (deaf) Contested(context.Context, proxy.Family, []desired.Conflict) {}
func (deaf) Applied(context.Context, loop.Applied)                       {}
func (deaf) Failed(context.Context, loop.Failed)                         {}

type metricsObserver struct{ metrics *metrics.Metrics }

func (o metricsObserver) Queued(f proxy.Family) { o.metrics.Queued(f) }

// Doubted counts. What exactly somebody did, and who it was, is in the log.
func (o metricsObserver) Doubted(f proxy.Family, reason string) {
	why := metrics.Changed
	if reason == loop.Unseen {
		why = metrics.Unseen
	}
	o.metrics.Repair(f, why)
}

func (o metricsObserver) Contested(_ context.Context, f proxy.Family, conflicts []desired.Conflict) {
	o.metrics.Conflicts(f, len(conflicts))
}

func (o metricsObserver) Applied(_ context.Context, a loop.Applied) {
	o.metrics.Applied(metrics.Sync{Family: a.Family, Report: a.Report, Took: a.Took, Triggers: a.Triggers}, a.New)
}

func (o metricsObserver) Failed(_ context.Context, f loop.Failed) {
	o.metrics.Failed(metrics.Sync{Family: f.Family, Report: f.Report, Took: f.Took})
}

type healthObserver struct {
	deaf
	health *healthcheck.Server
}

func (o healthObserver) Queued(f proxy.Family) { o.health.Queued(f) }

func (o healthObserver) Applied(ctx context.Context, a loop.Applied) {
	o.health.Applied(a.Family, a.New, a.Report.SetAside)
	o.health.Services(ctx, a.Family, a.New)
}

// relayObserver serves NodePorts on localhost where no rule can. It is for the modes in which kube-proxy does so.
type relayObserver struct {
	deaf
	relay *relay.Relay
}

func (o relayObserver) Applied(ctx context.Context, a loop.Applied) { o.relay.Applied(ctx, a.New) }

type reportObserver struct {
	deaf
	reporter *report.Reporter
}

func (o reportObserver) Contested(ctx context.Context, f proxy.Family, conflicts []desired.Conflict) {
	o.reporter.Contested(ctx, f, conflicts)
}

func (o reportObserver) Applied(ctx context.Context, a loop.Applied) {
	o.reporter.SetAside(ctx, a.Family, a.Report.SetAside)
}

// flowsObserver ends the flows that an applied snapshot no longer allows.
type flowsObserver struct {
	deaf
	cleaner *conntrack.Cleaner
	metrics *metrics.Metrics
	turns   *[len(proxy.Families)]turn
}

// flowsRetry is how long after a pass that failed, or may have missed flows, another follows.
const flowsRetry = 30 * time.Second

// turn is the cleaner's state in a family.
type turn struct {
	mu      sync.Mutex
	newest  *proxy.Snapshot
	waiting bool // another pass will come without being called for
}

func (o flowsObserver) Applied(ctx context.Context, a loop.Applied) {
	turn := &o.turns[a.Family]
	turn.mu.Lock()
	defer turn.mu.Unlock()
	turn.newest = a.New
	if a.Report.Full {
		o.cleaner.Distrust(a.Family) // something was amiss in the kernel, or may have been
	}
	o.follow(ctx, a.Family, o.clean(ctx, a.Family, func() (conntrack.Result, error) { return o.cleaner.Applied(ctx, a.Old, a.New) }))
}

// follow makes another pass after some time, unless that is 0 or one is to come anyway. It wants the turn.
func (o flowsObserver) follow(ctx context.Context, f proxy.Family, after time.Duration) {
	if turn := &o.turns[f]; after > 0 && !turn.waiting {
		turn.waiting = true
		time.AfterFunc(after, func() { o.again(ctx, f) })
	}
}

// again cleans once more for what is served by then.
func (o flowsObserver) again(ctx context.Context, f proxy.Family) {
	turn := &o.turns[f]
	turn.mu.Lock()
	defer turn.mu.Unlock()
	turn.waiting = false
	if ctx.Err() == nil {
		o.follow(ctx, f, o.clean(ctx, f, func() (conntrack.Result, error) { return o.cleaner.Again(ctx, turn.newest) }))
	}
}

// clean makes a pass, says what it did, and returns when another should follow.
func (o flowsObserver) clean(ctx context.Context, f proxy.Family, pass func() (conntrack.Result, error)) time.Duration {
	began := time.Now()
	result, err := pass()
	log := klog.FromContext(ctx)
	if err != nil && ctx.Err() == nil {
		log.Error(err, "Stale UDP flows not deleted", "retryIn", flowsRetry)
	}
	if !result.Pass {
		return 0
	}
	o.metrics.Conntrack(f, time.Since(began))
	for reason, n := range result.Deleted {
		if n > 0 {
			o.metrics.FlowsDeleted(f, conntrack.Reason(reason).String(), n)
		}
	}
	log.V(2).Info("Looked for stale UDP flows", "deleted", result.Total(), "took", time.Since(began))
	if err != nil || result.Interrupted {
		return flowsRetry
	}
	return result.Again
}
