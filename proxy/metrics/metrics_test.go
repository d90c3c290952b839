package metrics

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

func noChanges() Changes { return Changes{} }

func newMetrics(mode string) *Metrics { return New(Config{Mode: mode, Changes: noChanges}) }

// read is what Prometheus would read: series → value.
func read(t *testing.T, m *Metrics) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("code %d: %s", w.Code, w.Body)
	}
	series := map[string]string{}
	for line := range strings.Lines(w.Body.String()) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			series[line[:i]] = strings.TrimSpace(line[i:])
		}
	}
	return series
}

// expect compares single series; "absent" is a value too.
func expect(t *testing.T, m *Metrics, want map[string]string) {
	t.Helper()
	all, got := read(t, m), map[string]string{}
	for name := range want {
		got[name] = "absent"
		if v, ok := all[name]; ok {
			got[name] = v
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func empty(f proxy.Family) *proxy.Snapshot { return proxy.NewSnapshot(&proxy.Node{Family: f}, nil) }

func TestSyncsAreTimedByPhaseAndFamily(t *testing.T) {
	m := newMetrics("iptables")
	m.Applied(Sync{Family: proxy.IPv4, Took: 3 * time.Millisecond, Report: proxy.Report{Full: true}}, empty(proxy.IPv4))
	m.Applied(Sync{Family: proxy.IPv4, Took: 1500 * time.Microsecond}, empty(proxy.IPv4))
	m.Failed(Sync{Family: proxy.IPv4, Took: time.Second})
	m.Failed(Sync{Family: proxy.IPv6, Took: time.Minute, Report: proxy.Report{Full: true}})
	expect(t, m, map[string]string{
		`kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}`:                     "3",
		`kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.001"}`:         "0",
		`kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.002"}`:         "1",
		`kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.004"}`:         "2",
		`kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="16.384"}`:        "3",
		`kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="16.384"}`:        "0",
		`kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="+Inf"}`:          "1",
		`kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}`:                "1",
		`kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv4"}`:             "2",
		`kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv6"}`:                "1",
		`sluice_sync_failures_total{ip_family="IPv4"}`:                                            "1",
		`sluice_sync_failures_total{ip_family="IPv6"}`:                                            "1",
		`kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"}`:                     "absent",
		`kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv4"}`:            "0",
		`kubeproxy_sync_partial_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.004"}`: "1",
	})
}

func TestTimestampsOfQueuedAndApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics("ipvs")
		m.Queued(proxy.IPv6)
		queued := time.Now()
		time.Sleep(90 * time.Second)
		m.Applied(Sync{Family: proxy.IPv6}, empty(proxy.IPv6))
		unix := func(t time.Time) string { return strconv.FormatFloat(float64(t.Unix()), 'g', -1, 64) }
		expect(t, m, map[string]string{
			`kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"}`: unix(queued),
			`kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"}`:        unix(time.Now()),
		})
	})
}

func TestProgrammingTimeIgnoresWhatWasThereBeforeTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		m := newMetrics("iptables")
		time.Sleep(10 * time.Minute)
		now := time.Now()
		m.Applied(Sync{Family: proxy.IPv4, Triggers: []time.Time{
			began, began.Add(-time.Hour), now.Add(-400 * time.Millisecond), now.Add(-62 * time.Second), now.Add(-5 * time.Minute),
		}}, empty(proxy.IPv4))
		const bucket = `kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le=%q}`
		expect(t, m, map[string]string{
			`kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"}`: "3",
			fmt.Sprintf(bucket, "0.25"): "0",
			fmt.Sprintf(bucket, "0.5"):  "1",
			fmt.Sprintf(bucket, "59"):   "1",
			fmt.Sprintf(bucket, "60"):   "1",
			fmt.Sprintf(bucket, "65"):   "2",
			fmt.Sprintf(bucket, "115"):  "2",
			fmt.Sprintf(bucket, "120"):  "2",
			fmt.Sprintf(bucket, "270"):  "2",
			fmt.Sprintf(bucket, "300"):  "3",
			fmt.Sprintf(bucket, "61"):   "absent",
		})
		buckets := 0
		for name := range read(t, m) {
			if strings.HasPrefix(name, "kubeproxy_network_programming_duration_seconds_bucket") {
				buckets++
			}
		}
		if want := 3 + 59 + 12 + 7 + 1; buckets != want {
			t.Errorf("%d buckets, want %d", buckets, want)
		}
	})
}

func TestChangesAreReadWhenAskedForAndCountOnce(t *testing.T) {
	var now Changes
	m := New(Config{Mode: "iptables", Changes: func() Changes { return now }})
	now = Changes{ServiceEvents: 1, EndpointSliceEvents: 2, ServicesPending: 3, EndpointsPending: 4}
	expect(t, m, map[string]string{
		"kubeproxy_sync_proxy_rules_service_changes_total":    "1",
		"kubeproxy_sync_proxy_rules_endpoint_changes_total":   "2",
		"kubeproxy_sync_proxy_rules_service_changes_pending":  "3",
		"kubeproxy_sync_proxy_rules_endpoint_changes_pending": "4",
	})
	now = Changes{ServiceEvents: 7}
	expect(t, m, map[string]string{
		"kubeproxy_sync_proxy_rules_service_changes_total":   "7",
		"kubeproxy_sync_proxy_rules_service_changes_pending": "0",
	})
}

func TestOnlyMetricsOfTheActiveModeExist(t *testing.T) {
	const (
		rules   = `kubeproxy_sync_proxy_rules_iptables_total{ip_family="IPv4",table="nat"}`
		written = `kubeproxy_sync_proxy_rules_iptables_last{ip_family="IPv4",table="nat"}`
		failed  = `kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv4"}`
		partial = `kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family="IPv4"}`
		nft     = `kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"}`
		bytes   = `sluice_written_bytes_total{ip_family="IPv4"}`
		runs    = `sluice_transactions_total{ip_family="IPv4"}`
		objects = `sluice_kernel_objects{ip_family="IPv4",table="nat"}`
		writes  = `sluice_kernel_writes_total{ip_family="IPv4",table="nat"}`
		phase   = `kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}`
	)
	for mode, want := range map[string]map[string]string{
		"iptables": {rules: "10", written: "2", failed: "2", partial: "1", nft: "absent", phase: "1"},
		"nftables": {rules: "absent", written: "absent", failed: "absent", partial: "absent", nft: "3", phase: "1"},
		"ipvs":     {rules: "absent", written: "absent", failed: "absent", partial: "absent", nft: "absent", phase: "absent"},
	} {
		t.Run(mode, func(t *testing.T) {
			m := New(Config{Mode: mode, Changes: noChanges})
			m.Applied(Sync{Family: proxy.IPv4, Report: proxy.Report{
				Full: true, Bytes: 60, Refusals: 1, Transactions: 2, Tables: []proxy.TableCount{{Table: "nat", Objects: 10, Writes: 2}},
			}}, empty(proxy.IPv4))
			m.Failed(Sync{Family: proxy.IPv4, Report: proxy.Report{Bytes: 40, Refusals: 1, Transactions: 1}})
			if mode == "nftables" {
				m.Failed(Sync{Family: proxy.IPv4}) // not even tried
			}
			expect(t, m, want)
			expect(t, m, map[string]string{bytes: "100", runs: "3", objects: "10", writes: "2"})
		})
	}
}

func TestEventsAreCounted(t *testing.T) {
	m := newMetrics("iptables")
	m.Conntrack(proxy.IPv4, time.Millisecond)
	expect(t, m, map[string]string{`kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"}`: "0"})
	m.Conntrack(proxy.IPv4, time.Second)
	m.FlowsDeleted(proxy.IPv4, "endpoint_gone", 3)
	m.FlowsDeleted(proxy.IPv4, "untranslated", 4)
	m.Healthz(200)
	m.Healthz(503)
	m.Healthz(503)
	m.Livez(200)
	m.Conflicts(proxy.IPv6, 2)
	m.Applied(Sync{Family: proxy.IPv6, Report: proxy.Report{SetAside: []proxy.SetAside{{Err: errors.New("refused")}}}}, empty(proxy.IPv6))
	expect(t, m, map[string]string{
		`kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv4"}`:  "2",
		`kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"}`:        "7",
		`kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv6"}`:        "absent",
		`sluice_conntrack_deleted_flows_total{ip_family="IPv4",reason="endpoint_gone"}`: "3",
		`sluice_conntrack_deleted_flows_total{ip_family="IPv4",reason="untranslated"}`:  "4",
		`kubeproxy_proxy_healthz_total{code="200"}`:                                     "1",
		`kubeproxy_proxy_healthz_total{code="503"}`:                                     "2",
		`kubeproxy_proxy_livez_total{code="200"}`:                                       "1",
		`sluice_frontend_conflicts{ip_family="IPv6"}`:                                   "2",
		`sluice_service_ports_set_aside{ip_family="IPv6"}`:                              "1",
	})
	m.Applied(Sync{Family: proxy.IPv6}, empty(proxy.IPv6))
	expect(t, m, map[string]string{`sluice_service_ports_set_aside{ip_family="IPv6"}`: "0"})
}

func TestClientsAreCountedWhereTheModeCan(t *testing.T) {
	m := newMetrics("nftables")
	m.Clients(nil)
	expect(t, m, map[string]string{`sluice_affinity_clients{ip_family="IPv4"}`: "absent"})
	n := 7
	m.Clients(map[proxy.Family]func() (n, limit int, err error){
		proxy.IPv4: func() (int, int, error) { return n, 100, nil },
		proxy.IPv6: func() (int, int, error) { return 0, 100, errors.New("no answer") },
	})
	n++
	expect(t, m, map[string]string{
		`sluice_affinity_clients{ip_family="IPv4"}`:       "8",
		`sluice_affinity_clients_limit{ip_family="IPv4"}`: "100",
		`sluice_affinity_clients{ip_family="IPv6"}`:       "absent",
	})
}

// increase() of a series that appears at 1 is 0.
func TestAlertsOnGrowthSeeTheFirstTime(t *testing.T) {
	const (
		changed = `sluice_repairs_total{ip_family="IPv4",reason="changed"}`
		unseen  = `sluice_repairs_total{ip_family="IPv4",reason="unseen"}`
		failed  = `sluice_sync_failures_total{ip_family="IPv4"}`
	)
	m := newMetrics("iptables")
	m.Applied(Sync{Family: proxy.IPv4}, empty(proxy.IPv4))
	expect(t, m, map[string]string{changed: "0", unseen: "0", failed: "0"})
	m.Repair(proxy.IPv4, Changed)
	m.Repair(proxy.IPv4, Changed)
	m.Repair(proxy.IPv4, Unseen)
	m.Applied(Sync{Family: proxy.IPv4}, empty(proxy.IPv4))
	m.Failed(Sync{Family: proxy.IPv4})
	expect(t, m, map[string]string{changed: "2", unseen: "1", failed: "1"})
}

func TestProcessRuntimeAndBuildAreThere(t *testing.T) {
	m := New(Config{Mode: "iptables", Changes: noChanges, Build: Build{Major: "1", Minor: "36", GitVersion: "v1.36.0"}})
	var build string
	for name, value := range read(t, m) {
		if strings.HasPrefix(name, "kubernetes_build_info{") && value == "1" {
			build = name
		}
	}
	for _, label := range []string{`major="1"`, `minor="36"`, `git_version="v1.36.0"`, "git_commit=", "git_tree_state=", "build_date=", "go_version=", "compiler=", "platform="} {
		if !strings.Contains(build, label) {
			t.Errorf("build info %q lacks %s", build, label)
		}
	}
	all := read(t, m)
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "process_start_time_seconds"} {
		if all[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

// local is a ServicePort whose policies leave it without local backends as told.
func local(name string, internal, external bool) *proxy.ServicePort {
	drop := func(is bool) proxy.Routes {
		forward := proxy.Route{Verdict: proxy.Forward}
		r := proxy.Every(forward)
		if is {
			r[proxy.FromOutside] = proxy.Route{Verdict: proxy.Drop}
		}
		return r
	}
	addr := netip.MustParseAddrPort("10.96.0.1:80")
	return &proxy.ServicePort{
		Name: proxy.ServicePortName{Namespace: "ns", Name: name, Protocol: proxy.TCP},
		Frontends: []proxy.Frontend{
			{Kind: proxy.ClusterIP, Addr: addr, Routes: drop(internal)},
			{Kind: proxy.LoadBalancerIP, Addr: addr, Routes: drop(external)},
			{Kind: proxy.NodePort, Addr: addr, Routes: drop(external)},
		},
	}
}

func TestServicePortsWithoutLocalEndpointsAreCounted(t *testing.T) {
	m := newMetrics("iptables")
	node := &proxy.Node{}
	check := func(what, internal, external string) {
		t.Helper()
		t.Log(what)
		expect(t, m, map[string]string{
			`kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="internal"}`: internal,
			`kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"}`: external,
		})
	}
	change := func(s *proxy.Snapshot, ports ...*proxy.ServicePort) *proxy.Snapshot {
		changes := map[proxy.ServicePortName]*proxy.ServicePort{}
		for _, p := range ports {
			changes[p.Name] = p
		}
		return s.Next(node, changes)
	}
	first := change(proxy.NewSnapshot(node, nil), local("a", true, false), local("b", true, true), local("c", false, false))
	m.Applied(Sync{}, first)
	check("two internal, one external", "2", "1")
	second := change(first, local("a", false, true))
	m.Applied(Sync{}, second)
	check("a changed", "1", "2")
	// A snapshot that is seen twice, or not at all, does no harm.
	m.Applied(Sync{}, second)
	skipped := change(second, local("d", true, true))
	last := skipped.Next(node, map[proxy.ServicePortName]*proxy.ServicePort{local("b", false, false).Name: nil})
	m.Applied(Sync{}, last)
	check("d came, b went", "1", "2")
	rejecting := local("d", false, false)
	rejecting.Frontends[1].Routes = proxy.Routes{}
	m.Applied(Sync{}, change(last, rejecting))
	check("d has no endpoint anywhere", "0", "1")
	m.Applied(Sync{}, proxy.NewSnapshot(node, nil))
	check("nothing left", "0", "0")
}

func TestSeriesDoNotGrowWithServices(t *testing.T) {
	series := func(services int) int {
		m := newMetrics("iptables")
		ports := map[proxy.ServicePortName]*proxy.ServicePort{}
		for i := range services {
			p := local(fmt.Sprint("s", i), i%2 == 0, i%3 == 0)
			ports[p.Name] = p
		}
		m.Applied(Sync{Report: proxy.Report{Full: true}}, proxy.NewSnapshot(&proxy.Node{}, ports))
		n := 0
		for name := range read(t, m) {
			if !strings.HasPrefix(name, "go_") { // the runtime's own come and go
				n++
			}
		}
		return n
	}
	if few, many := series(1), series(5000); few != many || many > 500 {
		t.Errorf("%d series with one Service, %d with 5000", few, many)
	}
}

func TestMetricsServer(t *testing.T) {
	m := newMetrics("iptables")
	cfg := ServerConfig{Mode: "iptables", Handlers: map[string]http.Handler{"/configz": text("configured")}, Verbosity: text("set")}
	get := func(h http.Handler, path, from string) (int, string, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.RemoteAddr = from
		h.ServeHTTP(w, r)
		body, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, string(body), w.Header().Get("Content-Type")
	}
	const remote, loopback, mapped = "192.0.2.1:1000", "127.0.0.1:1000", "[::ffff:127.0.0.1]:1000"
	plain := m.ServerHandler(cfg)
	for path, want := range map[string]string{"/healthz": "ok", "/healthz/ping": "ok", "/proxyMode": "iptables", "/configz": "configured"} {
		code, body, contentType := get(plain, path, remote)
		if code != http.StatusOK || body != want || !strings.HasPrefix(contentType, "text/plain") {
			t.Errorf("%s: %d %q %q, want %q", path, code, body, contentType, want)
		}
	}
	if code, body, _ := get(plain, "/metrics", remote); code != http.StatusOK || !strings.Contains(body, "# HELP kubernetes_build_info ") {
		t.Errorf("/metrics: %d %.200q", code, body)
	}
	for _, path := range []string{"/", "/nothing", "/metrics/", "/debug/pprof/", "/debug/pprof/heap"} {
		if code, _, _ := get(plain, path, loopback); code != http.StatusNotFound {
			t.Errorf("%s: code %d, want 404", path, code)
		}
	}
	cfg.Profiling = true
	profiling := m.ServerHandler(cfg)
	for from, want := range map[string]int{remote: http.StatusForbidden, loopback: http.StatusOK, mapped: http.StatusOK} {
		if code, _, _ := get(profiling, "/debug/pprof/goroutine", from); code != want {
			t.Errorf("profile for %s: code %d, want %d", from, code, want)
		}
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/debug/flags/v", strings.NewReader("4"))
		r.RemoteAddr = from
		if profiling.ServeHTTP(w, r); w.Code != want {
			t.Errorf("verbosity from %s: code %d, want %d", from, w.Code, want)
		}
	}
	if code, _, _ := get(profiling, "/debug/flags/v", loopback); code != http.StatusMethodNotAllowed {
		t.Errorf("verbosity is told: code %d", code)
	}
}

func TestMetricsServerIsDisabledWithoutAddress(t *testing.T) {
	if err := newMetrics("iptables").Serve(t.Context(), ServerConfig{HardFail: true}); err != nil {
		t.Error(err)
	}
}
