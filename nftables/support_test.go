package nftables

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

func TestKernelSupportsEveryFeature(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		if err := NewMode(Config{}).Supported(t.Context(), proxy.Family(f)); err != nil {
			t.Fatal(err)
		}
		p := &probe{table: nft.NewProbe(proxy.Family(f), schema), writer: probeWriter(proxy.Family(f))}
		for _, x := range p.features() {
			if err := p.try(t.Context(), []nft.Chain{x.chain}); err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
		}
		if got := runNFT(t, "list", "ruleset"); got != "" {
			t.Errorf("left behind: %s", got)
		}
	})
}

// A process that was killed while it probed may have been of another version.
func TestKernelProbeIsNotMisledByWhatAnotherLeft(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		runNFT(t, fmt.Sprintf("table %s %s-probe { flags dormant; set cluster-ips { type inet_service; }; chain learn { type filter hook input priority 3; }; }",
			nft.Family(proxy.Family(f)), Table))
		if err := NewMode(Config{}).Supported(t.Context(), proxy.Family(f)); err != nil {
			t.Error(err)
		}
	})
}

func TestKernelProbeNamesWhatIsMissing(t *testing.T) {
	for missing, want := range map[string]string{
		"numgen":                    "expression numgen",
		"fib daddr type":            "expression fib (address type)",
		"masquerade fully-random":   "statement masquerade fully-random",
		"type nat hook postrouting": "chain of type nat at hook postrouting",
		"flags interval":            "set allowed",
	} {
		t.Run(missing, func(t *testing.T) {
			inKernels(t, func(t *testing.T, f inFamily) {
				withoutNFT(t, missing)
				err := NewMode(Config{}).Supported(t.Context(), proxy.Family(f))
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want one that names %q", err, want)
				}
			})
		})
	}
}

// withoutNFT puts an nft before the real one that refuses what has a certain text.
func withoutNFT(t *testing.T, text string) {
	t.Helper()
	program, err := exec.LookPath("nft")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`#!/bin/sh
input=$(cat)
case $input in
*%q*) echo '/dev/stdin:1:1-9: Error: Could not process rule: Operation not supported'; exit 1 ;;
esac
printf '%%s\n' "$input" | exec %s "$@"
`, text, program)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "nft"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// Whoever lists all rules of the node, or saves and loads them, is not kept from it by our table.
func TestKernelTableCanBeListedAndLoaded(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		mustApply(t, newTestDataplane(f), snapshot(f.node(), append(crowd(60), wide(3))...))
		list := runNFT(t, "list", "ruleset")
		if strings.Contains(list, "unknown") || strings.Contains(list, "# ") {
			t.Errorf("not all of it is understood:\n%s", list)
		}
		// nft 1.0.6 warns that JSON has no word for rules that change elements.
		if out, err := exec.CommandContext(t.Context(), "nft", "-j", "list", "ruleset").Output(); err != nil || !json.Valid(out) {
			t.Errorf("as JSON: %v, %.200s", err, out)
		}
		file := filepath.Join(t.TempDir(), "ruleset")
		if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
		ns, err := lab.NewNamespace()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ns.Close() }()
		if err := ns.Do(func() error { runNFT(t, "-f", file); return nil }); err != nil {
			t.Fatal(err)
		}
	})
}
