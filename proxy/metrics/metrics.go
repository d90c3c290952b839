package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-proxy/sluice/proxy"
)

// Config configures Metrics. Mode and Changes are required.
type Config struct {
	// Mode is the mode that is active; metrics of others are absent.
	Mode string

	// Changes reads the state of the tracker whenever metrics are read.
	Changes func() Changes

	// Client, when not nil, counts requests to the API server.
	Client *Client

	// Silence, when not nil, reads for how long the API server has said nothing about each resource.
	Silence func() map[string]time.Duration

	Build    Build
	Features []Feature
}

// Feature is a feature gate.
type Feature struct {
	Name, Stage string
	Enabled     bool
}

// Changes counts what came from the API server. Both families share it.
type Changes struct {
	ServiceEvents, EndpointSliceEvents uint64 // since the start
	ServicesPending, EndpointsPending  int    // not yet in a snapshot
}

// Build says what is running.
type Build struct {
	Major, Minor, GitVersion, GitCommit, GitTreeState, BuildDate string
}

// Doubt is why the kernel may not hold what was applied. There are few, so that a fight with another program, which may do
// something else each time, is one series that grows.
type Doubt int

// The doubts.
const (
	Changed Doubt = iota // somebody else changed what is ours
	Unseen               // nobody was watching for a while
	numDoubts
)

// String is the label of a Doubt.
func (d Doubt) String() string { return [numDoubts]string{"changed", "unseen"}[d] }

// Sync describes an attempt to bring a snapshot to the kernel.
type Sync struct {
	Family proxy.Family
	Report proxy.Report
	Took   time.Duration

	// Triggers are the times at which the changes were made that reached the kernel.
	Triggers []time.Time
}

// Metrics is the registry of the proxy. It is safe for concurrent use, except that Applied must not
// be called twice at the same time for one family.
type Metrics struct {
	registry *prometheus.Registry
	started  time.Time

	sync, full, partial *prometheus.HistogramVec
	lastApplied         *prometheus.GaugeVec
	lastQueued          *prometheus.GaugeVec
	programming         *prometheus.HistogramVec
	noLocalEndpoints    *prometheus.GaugeVec
	local               [len(proxy.Families)]localEndpoints
	conntrackDuration   *prometheus.HistogramVec
	conntrackDeleted    *prometheus.CounterVec
	conntrackReasons    *prometheus.CounterVec
	healthz, livez      *prometheus.CounterVec
	setAside, conflicts *prometheus.GaugeVec
	failures            *prometheus.CounterVec
	repairs             *prometheus.CounterVec
	audits, differences *prometheus.CounterVec
	relayFailures       *prometheus.CounterVec
	kernel              kernelMetrics
	iptables            *iptablesMetrics       // nil in other modes
	nftablesFailed      *prometheus.CounterVec // nil in other modes
}

var (
	// syncBuckets are 1 ms to 16 s.
	syncBuckets = prometheus.ExponentialBuckets(0.001, 2, 15)

	// programmingBuckets are fine where most changes are and reach 5 minutes. The first is kube-proxy's by mistake.
	programmingBuckets = append(append(append([]float64{0, 0.25, 0.5},
		prometheus.LinearBuckets(1, 1, 59)...),
		prometheus.LinearBuckets(60, 5, 12)...),
		prometheus.LinearBuckets(120, 30, 7)...)
)

const (
	familyLabel = "ip_family"
	reasonLabel = "reason"
)

// New makes the metrics with a registry of their own.
func New(cfg Config) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), started: time.Now()}
	f := factory{m.registry}
	m.sync = f.histogram("kubeproxy_sync_proxy_rules_duration_seconds",
		"Time of each attempt to bring the rules to the kernel, whether it succeeded or not.", syncBuckets)
	m.lastApplied = f.gauge("kubeproxy_sync_proxy_rules_last_timestamp_seconds",
		"Unix time at which rules last reached the kernel.", familyLabel)
	m.lastQueued = f.gauge("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
		"Unix time at which a change last asked for rules to be brought to the kernel.", familyLabel)
	m.programming = f.histogram("kubeproxy_network_programming_duration_seconds",
		"Time from the change of a pod or Service to the rules that follow from it, this node's share included.", programmingBuckets)
	m.noLocalEndpoints = f.gauge("kubeproxy_sync_proxy_rules_no_local_endpoints_total",
		"Service ports with traffic policy Local that have endpoints, but none on this node.", "traffic_policy", familyLabel)
	m.conntrackDuration = f.histogram("kubeproxy_conntrack_reconciler_sync_duration_seconds",
		"Time of each search for stale UDP flows.", syncBuckets)
	m.conntrackDeleted = f.counter("kubeproxy_conntrack_reconciler_deleted_entries_total",
		"Stale UDP flows that were deleted.", familyLabel)
	m.healthz = f.counter("kubeproxy_proxy_healthz_total", "Answers of /healthz, by HTTP status.", "code")
	m.livez = f.counter("kubeproxy_proxy_livez_total", "Answers of /livez, by HTTP status.", "code")
	m.own(f)
	f.changes(cfg.Changes)
	f.build(cfg.Build)
	f.features(cfg.Features)
	if cfg.Client != nil {
		m.registry.MustRegister(cfg.Client)
	}
	if cfg.Silence != nil {
		m.registry.MustRegister(silence(cfg.Silence))
	}
	switch cfg.Mode {
	case "iptables":
		m.phases(f)
		m.iptables = newIPTables(f)
	case "nftables":
		m.phases(f)
		m.relayFailures = f.counter("sluice_localhost_listen_failures_total",
			"Attempts to listen on a NodePort of the loopback address that failed.", familyLabel)
		m.nftablesFailed = f.counter("kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
			"Transactions that the kernel refused, and attempts that failed for another reason.", familyLabel)
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// own makes the metrics that kube-proxy does not have.
func (m *Metrics) own(f factory) {
	m.conntrackReasons = f.counter("sluice_conntrack_deleted_flows_total",
		"Stale UDP flows that were deleted, by the reason for which they were stale.", reasonLabel, familyLabel)
	m.setAside = f.gauge("sluice_service_ports_set_aside",
		"Service ports that are not served because the kernel refuses them.", familyLabel)
	m.conflicts = f.gauge("sluice_frontend_conflicts",
		"Addresses that several Services claim and only one gets.", familyLabel)
	m.failures = f.counter("sluice_sync_failures_total",
		"Attempts to bring the rules to the kernel that failed.", familyLabel)
	m.kernel = newKernel(f)
	m.repairs = f.counter("sluice_repairs_total",
		"Doubts that the kernel holds what was applied, each followed by a repair, by reason.", reasonLabel, familyLabel)
	m.audits = f.counter("sluice_audits_total",
		"Times that the kernel was compared with what was applied because it was time to, by what came of it.", "result", familyLabel)
	m.differences = f.counter("sluice_audit_differences_total",
		"Objects that these comparisons found missing, altered or foreign.", "kind", familyLabel)
}

// phases makes the metrics of modes that can write a difference.
func (m *Metrics) phases(f factory) {
	m.full = f.histogram("kubeproxy_sync_full_proxy_rules_duration_seconds",
		"Time of each attempt to write all rules.", syncBuckets)
	m.partial = f.histogram("kubeproxy_sync_partial_proxy_rules_duration_seconds",
		"Time of each attempt to write the rules that changed.", syncBuckets)
}

// Registry is where further collectors may be registered.
func (m *Metrics) Registry() prometheus.Registerer { return m.registry }

// Handler answers with all metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Queued says that a change of a family waits to be applied.
func (m *Metrics) Queued(f proxy.Family) {
	m.lastQueued.WithLabelValues(f.String()).SetToCurrentTime()
}

// Applied says that the kernel serves a snapshot.
func (m *Metrics) Applied(s Sync, snapshot *proxy.Snapshot) {
	family := s.Family.String()
	m.observe(s)
	m.lastApplied.WithLabelValues(family).SetToCurrentTime()
	m.setAside.WithLabelValues(family).Set(float64(len(s.Report.SetAside)))
	now := time.Now()
	for _, t := range s.Triggers {
		if t.After(m.started) { // what was there before is not our delay
			m.programming.WithLabelValues(family).Observe(now.Sub(t).Seconds())
		}
	}
	none := m.local[s.Family].update(snapshot)
	m.noLocalEndpoints.WithLabelValues("internal", family).Set(float64(none.internal))
	m.noLocalEndpoints.WithLabelValues("external", family).Set(float64(none.external))
	m.kernel.applied(family, s.Report.Tables)
	if m.iptables != nil {
		m.iptables.applied(family, s.Report.Tables)
	}
}

// Failed says that an attempt did not succeed.
func (m *Metrics) Failed(s Sync) {
	m.observe(s)
	m.failures.WithLabelValues(s.Family.String()).Inc()
	if m.nftablesFailed != nil && s.Report.Refusals == 0 {
		m.nftablesFailed.WithLabelValues(s.Family.String()).Inc()
	}
}

// observe counts the time of an attempt. What may go wrong after the first is 0 from then on, not absent, so that an alert
// on its growth sees the first time.
func (m *Metrics) observe(s Sync) {
	family, seconds := s.Family.String(), s.Took.Seconds()
	m.failures.WithLabelValues(family)
	for why := range numDoubts {
		m.repairs.WithLabelValues(why.String(), family)
	}
	for _, kind := range []proxy.DifferenceKind{proxy.Missing, proxy.Altered, proxy.Foreign} {
		m.differences.WithLabelValues(kind.String(), family)
	}
	m.kernel.written(family, s.Report)
	if m.iptables != nil {
		m.iptables.restored(family, s.Report)
	}
	if m.nftablesFailed != nil {
		m.nftablesFailed.WithLabelValues(family).Add(float64(s.Report.Refusals))
	}
	m.sync.WithLabelValues(family).Observe(seconds)
	switch {
	case m.full == nil: // the mode has no such phases
	case s.Report.Full:
		m.full.WithLabelValues(family).Observe(seconds)
	default:
		m.partial.WithLabelValues(family).Observe(seconds)
	}
}

// Conntrack says that stale flows were looked for.
func (m *Metrics) Conntrack(f proxy.Family, took time.Duration) {
	m.conntrackDuration.WithLabelValues(f.String()).Observe(took.Seconds())
	m.conntrackDeleted.WithLabelValues(f.String()) // exists from the first search on
}

// FlowsDeleted counts stale flows that were deleted for a reason.
func (m *Metrics) FlowsDeleted(f proxy.Family, reason string, n int) {
	m.conntrackDeleted.WithLabelValues(f.String()).Add(float64(n))
	m.conntrackReasons.WithLabelValues(reason, f.String()).Add(float64(n))
}

// Conflicts sets how many frontends several ServicePorts claim.
func (m *Metrics) Conflicts(f proxy.Family, n int) {
	m.conflicts.WithLabelValues(f.String()).Set(float64(n))
}

// Repair counts a doubt about the kernel's state.
func (m *Metrics) Repair(f proxy.Family, why Doubt) {
	m.repairs.WithLabelValues(why.String(), f.String()).Inc()
}

// Audited counts a comparison of the kernel with what was applied.
func (m *Metrics) Audited(f proxy.Family, found []proxy.Difference, err error) {
	result := "agrees"
	switch {
	case err != nil:
		result = "failed"
	case len(found) > 0:
		result = "differs"
	}
	m.audits.WithLabelValues(result, f.String()).Inc()
	for _, x := range found {
		m.differences.WithLabelValues(x.Kind.String(), f.String()).Inc()
	}
}

// RelayFailed counts a NodePort that could not be opened on the loopback address.
func (m *Metrics) RelayFailed(f proxy.Family) {
	if m.relayFailures != nil {
		m.relayFailures.WithLabelValues(f.String()).Inc()
	}
}

// Healthz counts an answer of /healthz.
func (m *Metrics) Healthz(code int) { m.healthz.WithLabelValues(strconv.Itoa(code)).Inc() }

// Livez counts an answer of /livez.
func (m *Metrics) Livez(code int) { m.livez.WithLabelValues(strconv.Itoa(code)).Inc() }
