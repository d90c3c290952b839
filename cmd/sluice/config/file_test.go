package config

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/proxy/nodeinfo"
)

// configFile is the path of a file with that content below the two lines that every configuration begins with.
func configFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.conf")
	write(t, path, content)
	return path
}

func write(t *testing.T, path, content string) {
	t.Helper()
	content = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n" + content
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What kubeadm writes leaves nearly everything empty.
func TestFileOfKubeadmGivesTheDefaults(t *testing.T) {
	cfg := mustParse(t, "--config=testdata/kubeadm.yaml", "--hostname-override=Node-1")
	want := mustParse(t, "--hostname-override=node-1", "--cluster-cidr=10.244.0.0/16", "--kubeconfig=/var/lib/kube-proxy/kubeconfig.conf")
	if cfg.File == nil || len(cfg.Notes) > 0 {
		t.Errorf("file %v, notes %v", cfg.File, cfg.Notes)
	}
	want.Kube, want.File = cfg.Kube, cfg.File
	want.Node.Name = "node-1"
	if diff := cmp.Diff(want, cfg, cmp.AllowUnexported(nodeinfo.NodePortSelection{}), cmp.Comparer(func(a, b *File) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-flags +file):\n%s", diff)
	}
}

func TestFieldsReachTheConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		ok      func(*Config) bool
	}{
		"mode": {"mode: nftables", func(c *Config) bool { return c.Mode == "nftables" && c.Kube.NodePortAddresses[0] == "primary" }},
		"auto": {"mode: auto", func(c *Config) bool { return c.Mode == Auto && len(c.Kube.NodePortAddresses) == 0 }},
		"section of iptables": {"mode: iptables\niptables: {masqueradeBit: 1, masqueradeAll: true, syncPeriod: 5s, minSyncPeriod: 2s}\nnftables: {masqueradeBit: 77, syncPeriod: -1s}", func(c *Config) bool {
			return c.Node.MasqueradeMark == 2 && c.Node.MasqueradeAll && c.SyncPeriod == 5*time.Second && c.MinSyncPeriod == 2*time.Second
		}},
		"section of nftables": {"mode: nftables\niptables: {masqueradeAll: true, syncPeriod: 5s}\nnftables: {masqueradeBit: 3, minSyncPeriod: 3s}", func(c *Config) bool {
			return c.Node.MasqueradeMark == 8 && !c.Node.MasqueradeAll && c.SyncPeriod == 30*time.Second && c.MinSyncPeriod == 3*time.Second
		}},
		"section of ipvs": {"mode: ipvs\niptables: {masqueradeAll: true, masqueradeBit: 2, minSyncPeriod: 5s}\nipvs: {scheduler: sh, tcpTimeout: 9s, excludeCIDRs: [192.0.2.0/24]}", func(c *Config) bool {
			return c.Node.MasqueradeMark == 4 && c.Node.MasqueradeAll && c.MinSyncPeriod == 0 && c.IPVS.Scheduler == "sh" && c.IPVS.Timeouts.TCP == 9*time.Second && len(c.IPVS.Exclude) == 1
		}},
		"section of an empty": {"iptables: {masqueradeBit: 2, minSyncPeriod: 4s}\nnftables: {masqueradeBit: 3}", func(c *Config) bool {
			return c.Mode == Auto && c.Node.MasqueradeMark == 4 && c.MinSyncPeriod == 4*time.Second
		}},
		"junk nobody reads": {"mode: iptables\nipvs: {excludeCIDRs: [junk], tcpTimeout: -5s}", func(c *Config) bool { return c.Mode == "iptables" }},
		"conntrack": {"conntrack: {maxPerCore: 0, min: 5, tcpEstablishedTimeout: 0s, tcpBeLiberal: true, udpTimeout: 7s}", func(c *Config) bool {
			return c.Conntrack == conntrack.Tuning{Min: 5, TCPCloseWait: time.Hour, TCPBeLiberal: true, UDP: 7 * time.Second}
		}},
		"IPv6 addresses":         {"bindAddress: '::'", func(c *Config) bool { return c.HealthzAddr == "[::]:10256" && c.MetricsAddr == "[::1]:10249" }},
		"address without a port": {"metricsBindAddress: 0.0.0.0", func(c *Config) bool { return c.MetricsAddr == "0.0.0.0:10249" }},
		"client": {"clientConnection: {kubeconfig: /k, qps: 50, burst: 100, acceptContentTypes: a, contentType: b}", func(c *Config) bool {
			return c.Client == Client{Kubeconfig: "/k", QPS: 50, Burst: 100, AcceptContentTypes: "a", ContentType: "b"}
		}},
		"gate":           {"featureGates: {AllowServiceExternalIPs: false}", func(c *Config) bool { return !c.ExternalIPs }},
		"hostname":       {"hostnameOverride: ' N '", func(c *Config) bool { return c.Node.Name == "n" }},
		"removed fields": {"udpIdleTimeout: 250ms\nresourceContainer: /kube-proxy\nconntrack: {max: 5}", func(c *Config) bool { return len(c.Notes) == 3 }},
		"no effect here": {"portRange: 1-2\nmode: ipvs\nipvs: {strictARP: true}\nwinkernel: {enableDSR: true}", func(c *Config) bool { return len(c.Notes) == 3 }},
		"JSON is YAML":   {`{"mode": "iptables"}`, func(c *Config) bool { return c.Mode == "iptables" }},
	} {
		t.Run(name, func(t *testing.T) {
			path := configFile(t, c.content)
			if strings.HasPrefix(c.content, "{") {
				content := `{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", ` + c.content[1:]
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if cfg := mustParse(t, "--config", path); !c.ok(cfg) {
				t.Errorf("got %+v", cfg)
			}
		})
	}
}

func TestEveryMistakeInAFileIsReported(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    []string // each is part of the error
	}{
		"unknown": {"mod: iptables\niptables: {masqBit: 1}", []string{"KubeProxyConfiguration.mod: there is no such field", "KubeProxyConfiguration.iptables.masqBit: there is no such field"}},
		"twice":   {"mode: iptables\nmode: nftables", []string{`"mode" already set`}},
		"type":    {"oomScoreAdj: low", []string{"oomScoreAdj"}},
		"values": {"mode: warp\noomScoreAdj: 4000\nconfigSyncPeriod: -1s\niptables: {masqueradeBit: 32, minSyncPeriod: 1h}\nnodePortAddresses: [x]\nfeatureGates: {Nope: true}\nclusterCIDR: 10.0.0.0", []string{
			`KubeProxyConfiguration.mode: "warp"`, "KubeProxyConfiguration.oomScoreAdj: 4000", "KubeProxyConfiguration.configSyncPeriod: -1s", "KubeProxyConfiguration.iptables.masqueradeBit: 32",
			"KubeProxyConfiguration.iptables.minSyncPeriod: 1h0m0s is not between 0 and iptables.syncPeriod, 30s",
			`KubeProxyConfiguration.nodePortAddresses: "x"`, `KubeProxyConfiguration.featureGates: there is no gate "Nope"`, `KubeProxyConfiguration.clusterCIDR: "10.0.0.0"`,
		}},
		"section in use": {"mode: nftables\nnftables: {masqueradeBit: 77, syncPeriod: -1s}", []string{"nftables.masqueradeBit: 77", "nftables.syncPeriod: -1s is not positive"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, "--config", configFile(t, c.content))
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("no %q in:\n%v", part, err)
				}
			}
		})
	}
	for name, path := range map[string]string{"missing": "/does/not/exist", "another kind": "testdata/pod.yaml", "empty": os.DevNull} {
		if _, err := parse(t, "--config", path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestFlagsBesideAFile(t *testing.T) {
	path := configFile(t, "mode: iptables\nhostnameOverride: from-file\nlogging: {verbosity: 1, vmodule: [{filePattern: a, verbosity: 1}]}\nfeatureGates: {AllowServiceExternalIPs: false}")
	cfg := mustParse(t, "--config", path, "--hostname-override=From-Flag", "--master=https://m", "-v=4", "--vmodule=b=2",
		"--mode=nftables", "--feature-gates=AllowServiceExternalIPs=true", "--healthz-port=0", "--service-cidrs=10.96.0.0/12")
	if cfg.Node.Name != "from-flag" || cfg.Client.Master != "https://m" || cfg.Kube.Logging.Verbosity != 4 || len(cfg.Node.ServiceCIDRs) != 1 {
		t.Errorf("flags that count do not: %+v", cfg)
	}
	if got := cfg.Kube.Logging.VModule; len(got) != 2 || got[0].FilePattern != "b" || got[1].FilePattern != "a" {
		t.Errorf("vmodule is %v", got)
	}
	if cfg.Mode != "iptables" || cfg.ExternalIPs || cfg.HealthzAddr == "" {
		t.Errorf("flags that do not count do: %+v", cfg)
	}
	var noted []string
	for _, n := range cfg.Notes {
		noted = append(noted, n.Setting)
	}
	if diff := cmp.Diff([]string{"--feature-gates", "--healthz-port", "--mode"}, noted); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

func TestWrittenConfigurationIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "written")
	o := NewOptions([]string{"nftables", "iptables", "ipvs"})
	fs := newFlags(o)
	if err := fs.Parse([]string{"--write-config-to", path, "--cluster-cidr=10.0.0.0/8", "--masquerade-all", "--ipvs-scheduler=sh"}); err != nil {
		t.Fatal(err)
	}
	if err := o.Complete(); err != nil {
		t.Fatal(err)
	}
	if err := o.Write(); err != nil {
		t.Fatal(err)
	}
	cfg := mustParse(t, "--config", path)
	o.Kube.Mode = ""
	if diff := cmp.Diff(o.Kube, cfg.Kube); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
}

func TestChangedFileEndsTheRunUnlessItCannotBeUsed(t *testing.T) {
	path := configFile(t, "mode: iptables")
	cfg := mustParse(t, "--config", path)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- cfg.File.Changed(ctx) }()
		stays := func(why string) {
			t.Helper()
			time.Sleep(time.Minute)
			select {
			case err := <-ended:
				t.Fatalf("%s: ended with %v", why, err)
			default:
			}
		}
		stays("unchanged")
		write(t, path, "mode: warp")
		stays("unusable")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		stays("missing")
		write(t, path, "mode: iptables")
		stays("as before")
		write(t, path, "mode: nftables")
		time.Sleep(3 * lookInterval)
		synctest.Wait()
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("ended with %v", err)
			}
		default:
			t.Error("a change is not noticed")
		}
	})
}
