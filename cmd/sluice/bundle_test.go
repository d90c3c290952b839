package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/bundle"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/audit"
)

// unpack reads all files of a bundle.
func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatalf("%v: %q", err, archive)
	}
	found := map[string]string{}
	for files := tar.NewReader(zip); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		found[path.Base(header.Name)] = string(text)
	}
}

func TestKernelBundleTellsWhatTheProxyTells(t *testing.T) {
	for mode, kernel := range map[string]string{
		"nftables": "element ip sluice cluster-ips { 10.96.0.80",
		"iptables": "-A SLUICE-",
	} {
		t.Run(mode, func(t *testing.T) {
			ns := newNamespace(t)
			ns.output("ip", "link", "set", "lo", "up")
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(webManifest), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := ns.sluice("--mode="+mode, "--manifest-dir", dir, "-v=2", "--hostname-override=n1", "--conntrack-max-per-core=0", "--cluster-cidr=10.1.0.0/16")
			cmd.Env = append(cmd.Env, "SECRET_TOKEN=do-not-tell")
			lines := bufio.NewScanner(launch(t, cmd))
			until(t, lines, "Applied snapshot")
			until(t, lines, "Applied snapshot") // of the other family

			file := filepath.Join(t.TempDir(), "b.tar.gz")
			said, err := ns.sluice("bundle", file).CombinedOutput()
			if err != nil || !strings.Contains(string(said), "wrote "+file) {
				t.Fatalf("%v: %s", err, said)
			}
			archive, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			files := unpack(t, archive)
			for name, part := range map[string]string{
				"README.txt":              "There are no Secrets in it",
				recordFile:                `"name":"web"`,
				diffFile:                  `"differences": []`,
				"syncs.json":              `"servicePorts": 1`,
				"metrics.txt":             "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
				"config.json":             `"kubeproxy.config.k8s.io"`,
				"version.txt":             "Linux version",
				"check.txt":               "mode " + mode,
				"conntrack.txt":           "nf_conntrack_count",
				"kernel-" + mode + ".txt": kernel,
			} {
				if !strings.Contains(files[name], part) {
					t.Errorf("%s has no %q:\n%.2000s", name, part, files[name])
				}
			}
			for name, text := range files {
				if strings.Contains(text, "do-not-tell") {
					t.Errorf("%s tells the environment", name)
				}
			}

			answers := func(more ...string) string {
				t.Helper()
				var all strings.Builder
				for _, q := range [][]string{
					{"default/web"}, {"default/web", "-o=json"},
					{"--from=10.1.0.9", "--to=10.96.0.80:80"}, {"--from=outside", "--to=10.96.0.80:80", "-o=json"}, {"--from=10.1.0.9", "--to=10.96.0.80:81"},
				} {
					out, err := ns.sluice(append(append([]string{"explain"}, q...), more...)...).Output()
					if err != nil {
						t.Errorf("%q: %v", q, err)
					}
					all.Write(out)
				}
				return all.String()
			}
			ofProxy := answers("--intent-only") // a bundle has no more
			if out, err := ns.sluice("diff", "--bundle", file).CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("diff of the bundle: %v: %s", err, out)
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
			if ofBundle := answers("--bundle", file); ofBundle != ofProxy || !strings.Contains(ofProxy, "10.0.0.2:8080") {
				t.Errorf("the proxy says\n%s\nthe bundle says\n%s", ofProxy, ofBundle)
			}
		})
	}
}

// Support needs one most when nothing runs.
func TestKernelBundleIsMadeWithoutAProxy(t *testing.T) {
	ns := newNamespace(t)
	cmd := ns.sluice("bundle", "-")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	archive, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	files := unpack(t, archive)
	for _, text := range []string{stderr.String(), files["errors.txt"]} {
		if !strings.Contains(text, "record.jsonl: ask the proxy: no Sluice that can be asked runs in this network namespace") {
			t.Errorf("not told: %s", text)
		}
	}
	if !strings.Contains(files["version.txt"], "sluice ") {
		t.Errorf("there is no version: %v", files)
	}
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := ns.sluice("explain", "--bundle", file, "default/web").CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || !strings.Contains(string(out), "the record is cut off") {
		t.Errorf("%v: %s", err, out)
	}
	if out, code := ns.diff("--bundle", file); code != 1 || !strings.Contains(out, "no proxy could tell") {
		t.Errorf("diff of the bundle: exit code %d: %s", code, out)
	}
	if out, err := ns.sluice("bundle", file).CombinedOutput(); err == nil || !strings.Contains(string(out), "file exists") {
		t.Errorf("wrote over a file: %v: %s", err, out)
	}
}

func TestDiffReadsWhatABundleSays(t *testing.T) {
	report := audit.NewReport("ipvs")
	report.Add(proxy.IPv4, []proxy.Difference{{Kind: proxy.Altered, Object: "virtual server 10.0.0.1:80", Detail: "scheduler lc instead of rr"}})
	var archive bytes.Buffer
	_, err := bundle.Write(t.Context(), &archive, "b", []bundle.Piece{{Name: diffFile, Write: func(_ context.Context, w io.Writer) error { return report.WriteJSON(w) }}}, bundle.Usual)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ output, want string }{{"text", "IPv4    altered  virtual server 10.0.0.1:80"}, {"json", `"detail": "scheduler lc instead of rr"`}} {
		var out strings.Builder
		cmd := newCommand()
		cmd.SetOut(&out)
		cmd.SetArgs([]string{"diff", "--bundle", file, "-o", test.output})
		if err := cmd.ExecuteContext(t.Context()); !errors.Is(err, differs) || !strings.Contains(out.String(), test.want) {
			t.Errorf("%v: %s", err, &out)
		}
	}
}
