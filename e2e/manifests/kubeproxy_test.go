package manifests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/kube-proxy/config/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

// output is what a program says, which must be content with its arguments.
func output(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// flagsOf are the flags that a program's help lists, with whether they want a value.
func flagsOf(t *testing.T, program string) map[string]bool {
	t.Helper()
	line := regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)( [\w=,.\[\]]+)?   `)
	flags := map[string]bool{}
	for _, match := range line.FindAllStringSubmatch(output(t, program, "--help"), -1) {
		flags[match[1]] = match[2] != "" && !strings.HasSuffix(match[2], "[=true]")
	}
	return flags
}

// Nobody's command line breaks: every flag of the real kube-proxy is known, and wants a value or not as there.
func TestEveryFlagOfKubeProxyIsKnown(t *testing.T) {
	theirs, ours := flagsOf(t, suite.KubeProxy), flagsOf(t, sluiceBinary)
	if len(theirs) < 50 {
		t.Fatalf("only %d flags found: %v", len(theirs), theirs)
	}
	ours["proxy-mode"] = ours["mode"]
	for flag, value := range theirs {
		if is, known := ours[flag]; !known || is != value {
			t.Errorf("--%s: known %t, wants a value %t, kube-proxy's %t", flag, known, is, value)
		}
	}
	// These are no longer in its help.
	output(t, sluiceBinary, "--healthz-port=1", "--metrics-port=1", "--write-config-to", filepath.Join(t.TempDir(), "config"))
}

// What both write without being told anything is the same, but for the periods of modes that are not in use, and each
// reads what the other writes.
func TestDefaultsAreThoseOfKubeProxy(t *testing.T) {
	for _, args := range [][]string{
		{"--proxy-mode=iptables"},
		{"--proxy-mode=iptables", "--bind-address=::"},
		{"--proxy-mode=nftables", "--cluster-cidr=10.0.0.0/8,fd00::/48", "--nodeport-addresses=primary"},
		{"--proxy-mode=nftables", "--iptables-min-sync-period=7s", "--masquerade-all"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			dir := t.TempDir()
			written := func(program, name string, args ...string) v1alpha1.KubeProxyConfiguration {
				t.Helper()
				path := filepath.Join(dir, name)
				output(t, program, append(slices.Clone(args), "--write-config-to", path)...)
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				var k v1alpha1.KubeProxyConfiguration
				if err := yaml.UnmarshalStrict(content, &k); err != nil {
					t.Fatal(err)
				}
				k.IPVS.SyncPeriod.Duration, k.IPVS.MinSyncPeriod.Duration = 0, 0
				if k.Mode == "nftables" {
					k.IPTables.SyncPeriod, k.IPTables.MinSyncPeriod, k.IPTables.MasqueradeAll = k.NFTables.SyncPeriod, k.NFTables.MinSyncPeriod, k.NFTables.MasqueradeAll
				} else {
					k.NFTables.SyncPeriod.Duration, k.NFTables.MinSyncPeriod.Duration = 0, 0
				}
				return k
			}
			theirs, ours := written(suite.KubeProxy, "theirs", args...), written(sluiceBinary, "ours", args...)
			same := func(what string, a, b v1alpha1.KubeProxyConfiguration) {
				t.Helper()
				if diff := cmp.Diff(plain(t, a), plain(t, b)); diff != "" {
					t.Errorf("%s (-kube-proxy +sluice):\n%s", what, diff)
				}
			}
			same("written", theirs, ours)
			same("written, and read by the other", written(suite.KubeProxy, "by-theirs", "--config", filepath.Join(dir, "ours")), ours)
			same("read from the other, and written", theirs, written(sluiceBinary, "by-ours", "--config", filepath.Join(dir, "theirs")))
		})
	}
}

// plain is the configuration as JSON has it.
func plain(t *testing.T, k v1alpha1.KubeProxyConfiguration) any {
	t.Helper()
	text, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return value
}
