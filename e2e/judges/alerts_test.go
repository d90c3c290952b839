package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/promqltest"
)

var shippedRules = filepath.Join("..", "..", "manifests", "components", "monitoring", "prometheusrule.yaml")

// situations are series, a value each minute, in which an alert fires after two hours, and in which it does not.
var situations = map[string]struct{ fires, silent []string }{
	"SluiceStuck": {
		fires: []string{
			`kubeproxy_sync_proxy_rules_last_timestamp_seconds{job="sluice"} 0+60x110 6600x20
			 kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{job="sluice"} 0+60x120`,
		},
		silent: []string{
			// Nothing happens in the cluster.
			`kubeproxy_sync_proxy_rules_last_timestamp_seconds{job="sluice"} 100x120
			 kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{job="sluice"} 99x120`,
			// A change waits, but not for long.
			`kubeproxy_sync_proxy_rules_last_timestamp_seconds{job="sluice"} 0+60x119 7140
			 kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{job="sluice"} 0+60x120`,
			// One family waits for nothing, the other is served.
			`kubeproxy_sync_proxy_rules_last_timestamp_seconds{job="sluice",ip_family="IPv4"} 100x120
			 kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{job="sluice",ip_family="IPv4"} 90x120
			 kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{job="sluice",ip_family="IPv6"} 0+60x120`,
		},
	},
	"SluiceDown": {
		fires:  []string{daemonSet("sluice", "1x120"), daemonSet("kube-proxy", "1x120")},
		silent: []string{daemonSet("sluice", "0x120"), daemonSet("sluice", "1x110 0x10"), daemonSet("other", "1x120")},
	},
	"SluiceNotScraped": {
		fires:  []string{`up{job="sluice",node="a"} 0x120`},
		silent: []string{`up{job="sluice",node="a"} 1x120`, `up{job="other"} 0x120`},
	},
	"SluiceRestarting": {
		fires:  []string{`process_start_time_seconds{job="sluice"} 1x100 2x4 3x4 4x4 5x8`},
		silent: []string{`process_start_time_seconds{job="sluice"} 1x100 2x20`, `process_start_time_seconds{job="other"} 0+1x120`},
	},
	"SluiceSyncFailing": {
		fires:  []string{`sluice_sync_failures_total{job="sluice"} 0+1x120`},
		silent: []string{`sluice_sync_failures_total{job="sluice"} 0x118 1x2`},
	},
	"SluiceWatchBroken": {
		fires:  []string{`sluice_watch_silence_seconds{job="sluice",node="a",resource="services"} 0+60x120`},
		silent: []string{`sluice_watch_silence_seconds{job="sluice",node="a",resource="services"} 60x120`},
	},
	"SluiceServiceRefused": {
		fires:  []string{`sluice_service_ports_set_aside{job="sluice"} 1x120`},
		silent: []string{`sluice_service_ports_set_aside{job="sluice"} 0x120`, `sluice_service_ports_set_aside{job="sluice"} 0x118 1x2`},
	},
	"SluiceSlow": {
		fires: []string{programmed("a", "0+10x120", "0+10x120", "0+11x120")},
		silent: []string{
			programmed("a", "0+10x120", "0+10x120", "0+10x120"),
			programmed("a", "0x120", "0x120", "0x120"),
		},
	},
	"SluiceRulesFoughtOver": {
		fires: []string{
			`sluice_repairs_total{job="sluice",reason="changed",ip_family="IPv4"} 0+1x120`,
			// The reason is not always the same.
			`sluice_repairs_total{job="sluice",reason="changed"} 0x110 1 2 3 4x8
			 sluice_repairs_total{job="sluice",reason="unseen"} 0x110 1 2 3x9`,
		},
		silent: []string{
			`sluice_repairs_total{job="sluice",reason="changed"} 0x100 1x20`,
			`sluice_repairs_total{job="sluice",reason="changed"} 0x110 1 2 3x9
			 sluice_repairs_total{job="sluice",reason="unseen"} 0x110 1 2x10`,
		},
	},
	"SluiceKernelDiffers": {
		fires: []string{`sluice_audits_total{job="sluice",result="differs",ip_family="IPv4"} 0x80 1x20 2x20`},
		silent: []string{
			`sluice_audits_total{job="sluice",result="differs",ip_family="IPv4"} 0x100 1x20`,
			`sluice_audits_total{job="sluice",result="agrees",ip_family="IPv4"} 0+1x120`,
		},
	},
	"SluiceKernelUnknown": {
		fires: []string{`sluice_audits_total{job="sluice",result="failed",ip_family="IPv4"} 0x60 0+0.1x60`},
		silent: []string{
			`sluice_audits_total{job="sluice",result="failed",ip_family="IPv4"} 0x80 1x20 2x20`,
			`sluice_audits_total{job="sluice",result="differs",ip_family="IPv4"} 0+1x120`,
		},
	},
	"SluiceAffinityNearlyFull": {
		fires: []string{`sluice_affinity_clients{job="sluice",node="a",ip_family="IPv4"} 900000x120
			sluice_affinity_clients_limit{job="sluice",node="a",ip_family="IPv4"} 1048576x120`},
		silent: []string{`sluice_affinity_clients{job="sluice",node="a",ip_family="IPv4"} 800000x120
			sluice_affinity_clients_limit{job="sluice",node="a",ip_family="IPv4"} 1048576x120`},
	},
	"SluiceAddressConflict": {
		fires:  []string{`sluice_frontend_conflicts{job="sluice",node="a"} 2x120`},
		silent: []string{`sluice_frontend_conflicts{job="sluice",node="a"} 0x120`},
	},
	"ConntrackNearlyFull": {
		fires: []string{`node_nf_conntrack_entries{instance="a"} 81x120
			node_nf_conntrack_entries_limit{instance="a"} 100x120`},
		silent: []string{`node_nf_conntrack_entries{instance="a"} 79x120
			node_nf_conntrack_entries_limit{instance="a"} 100x120`},
	},
}

func daemonSet(name, values string) string {
	return `kube_daemonset_status_number_unavailable{namespace="kube-system",daemonset="` + name + `"} ` + values
}

// programmed is a histogram: how many changes took at most 25 s, at most a minute, and any time.
func programmed(node, fast, slow, all string) string {
	bucket := `kubeproxy_network_programming_duration_seconds_bucket{job="sluice",node="` + node + `",le="`
	return bucket + `25"} ` + fast + "\n" + bucket + `60"} ` + slow + "\n" + bucket + `+Inf"} ` + all
}

func TestEveryAlertFiresWhenItShouldAndNotOtherwise(t *testing.T) {
	file, err := os.Open(shippedRules)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	shipped, err := rules(file)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, rule := range shipped {
		known[rule.Alert] = true
		s, ok := situations[rule.Alert]
		if !ok || len(s.fires) == 0 || len(s.silent) == 0 {
			t.Errorf("nobody says when %s fires and when it does not", rule.Alert)
		}
		t.Run(rule.Alert, func(t *testing.T) {
			for _, series := range s.fires {
				if !fires(t, rule, series) {
					t.Errorf("it does not fire for\n%s", series)
				}
			}
			for _, series := range s.silent {
				if fires(t, rule, series) {
					t.Errorf("it fires for\n%s", series)
				}
			}
		})
	}
	for alert := range situations {
		if !known[alert] {
			t.Errorf("there is no alert %s", alert)
		}
	}
}

// fires tells whether the alert's expression holds as long as the alert asks for, two hours after the series began.
func fires(t *testing.T, rule monitoring.Rule, series string) bool {
	t.Helper()
	storage := promqltest.LoadedStorage(t, "load 1m\n"+indented(series))
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	var wait model.Duration
	if rule.For != nil {
		var err error
		if wait, err = model.ParseDuration(string(*rule.For)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Unix(0, 0).Add(2 * time.Hour)
	for at := now.Add(-time.Duration(wait)); !at.After(now); at = at.Add(time.Minute) {
		query, err := engine.NewInstantQuery(t.Context(), storage, nil, rule.Expr.String(), at)
		if err != nil {
			t.Fatal(err)
		}
		found, err := query.Exec(t.Context()).Vector()
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			return false
		}
	}
	return true
}

func indented(series string) string {
	var lines strings.Builder
	for line := range strings.Lines(series) {
		lines.WriteString("  " + strings.TrimSpace(line) + "\n")
	}
	return lines.String()
}
