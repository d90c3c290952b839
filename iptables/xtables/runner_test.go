package xtables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

func TestChainsCountsRulesOfPrefixOnly(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		ctx := context.Background()
		got, err := r.Chains(ctx, "nat", "SLUICE-")
		if err != nil || len(got) != 0 {
			t.Fatalf("empty table: %v, %v", got, err)
		}
		mustRestore(t, r, "*nat", ":SLUICE-A - [0:0]", ":SLUICE-B - [0:0]", ":OTHER - [0:0]",
			"-A SLUICE-A -j SLUICE-B", `-A SLUICE-A -m comment --comment "-A SLUICE-B" -j RETURN`, "-A OTHER -j RETURN", "COMMIT")
		got, err = r.Chains(ctx, "nat", "SLUICE-")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]int{"SLUICE-A": 2, "SLUICE-B": 0}, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestListingLeavesNoLegacyTableBehind(t *testing.T) {
	enterNetns(t)
	for _, family := range proxy.Families {
		r := newRunner(t, family, Legacy)
		if _, err := r.Chains(context.Background(), "nat", "SLUICE-"); err != nil {
			t.Fatal(err)
		}
		if err := r.RemoveJumps(context.Background(), "SLUICE-"); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
		if names, err := os.ReadFile("/proc/thread-self/net/" + file); err != nil || len(names) > 0 {
			t.Errorf("%s: %q, %v", file, names, err)
		}
	}
}

func TestRestoreBlamesLine(t *testing.T) {
	tests := []struct {
		name  string
		input []string
		nft   int
		// The kernel refuses a whole table of the legacy backend.
		legacy int
	}{
		{"unknown match", []string{"*nat", ":SLUICE-A - [0:0]", "-A SLUICE-A -m nope -j RETURN", "COMMIT"}, 3, 3},
		{"jump to a missing chain", []string{"*filter", "COMMIT", "*nat", ":SLUICE-A - [0:0]", "-A SLUICE-A -j SLUICE-B", "COMMIT"}, 5, 5},
		{"rule for a missing chain", []string{"*nat", "-A SLUICE-B -j RETURN", "COMMIT"}, 2, 2},
		{"chain that is referred to", []string{"*nat", ":SLUICE-A - [0:0]", ":SLUICE-B - [0:0]", "-A SLUICE-A -j SLUICE-B", "-X SLUICE-B", "COMMIT"}, 5, 5},
		{"target of another table", []string{"*filter", ":SLUICE-A - [0:0]", "-A SLUICE-A -p tcp -j DNAT --to-destination :80", "COMMIT"}, 3, 0},
		{"no COMMIT", []string{"*nat", ":SLUICE-A - [0:0]"}, 3, 3},
		{"loop", []string{"*nat", ":SLUICE-A - [0:0]", "-A SLUICE-A -j SLUICE-A", "-A OUTPUT -j SLUICE-A", "COMMIT"}, 4, 0},
	}
	eachKernel(t, func(t *testing.T, r *Runner) {
		for _, test := range tests {
			want := test.nft
			if r.Backend() == Legacy {
				want = test.legacy
			}
			err := r.Restore(context.Background(), []byte(strings.Join(test.input, "\n")+"\n"))
			var refused *RestoreError
			if !errors.As(err, &refused) {
				t.Fatalf("%s: error is %v", test.name, err)
			}
			if refused.Line != want || refused.Resource {
				t.Errorf("%s: line %d instead of %d, resource %v: %v", test.name, refused.Line, want, refused.Resource, err)
			}
		}
	})
}

func TestLockedRestoreIsNobodysFault(t *testing.T) {
	enterNetns(t)
	lock := filepath.Join(t.TempDir(), "lock")
	t.Setenv("XTABLES_LOCKFILE", lock)
	f, err := os.Create(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	r, err := New(proxy.IPv4, Config{Backend: Legacy, Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Restore(context.Background(), []byte("*nat\nCOMMIT\n"))
	var refused *RestoreError
	if !errors.As(err, &refused) || !refused.Resource || refused.Line != 0 {
		t.Errorf("error is %v", err)
	}
}

func TestRestoreStopsWithItsContext(t *testing.T) {
	enterNetns(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var refused *RestoreError
	err := newRunner(t, proxy.IPv4, NFT).Restore(ctx, []byte("*nat\nCOMMIT\n"))
	if !errors.Is(err, context.Canceled) || errors.As(err, &refused) {
		t.Errorf("error is %v", err)
	}
}

func TestRestoreThatTakesTooLongMayBeTriedAgain(t *testing.T) {
	enterNetns(t)
	r := newRunner(t, proxy.IPv4, NFT)
	r.cfg.Timeout, r.cfg.Wait = 1, 0
	err := r.Restore(context.Background(), []byte("*nat\nCOMMIT\n"))
	var refused *RestoreError
	if !errors.As(err, &refused) || !refused.Resource || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
}

func TestRestoreThatIsKilledMayBeTriedAgain(t *testing.T) {
	enterNetns(t)
	r := newRunner(t, proxy.IPv4, NFT)
	r.tools.restore = filepath.Join(t.TempDir(), "restore")
	if err := os.WriteFile(r.tools.restore, []byte("#!/bin/sh\nkill -KILL $$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := r.Restore(context.Background(), []byte("*nat\nCOMMIT\n"))
	var refused *RestoreError
	if !errors.As(err, &refused) || !refused.Resource {
		t.Errorf("error is %v", err)
	}
}

func TestProgramThatSucceededMayLeaveItsPipesToOthers(t *testing.T) {
	enterNetns(t)
	heir := exec.Command("sh", "-c", "sleep 30 & echo $!")
	pid, err := newRunner(t, proxy.IPv4, NFT).run(heir)
	if err != nil {
		t.Errorf("error is %v", err)
	}
	if err := exec.Command("kill", strings.TrimSpace(pid)).Run(); err != nil {
		t.Errorf("end the heir %q: %v", pid, err)
	}
}

func TestSupportedLeavesNothing(t *testing.T) {
	eachKernel(t, func(t *testing.T, r *Runner) {
		if err := r.Supported(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, table := range ourTables {
			if got, err := r.Chains(context.Background(), table, ""); err != nil || hasUserChain(table, got) {
				t.Errorf("table %s: %v, %v", table, got, err)
			}
		}
	})
}

func hasUserChain(table string, chains map[string]int) bool {
	for _, name := range builtin[table] {
		delete(chains, name)
	}
	return len(chains) > 0
}

func TestSupportedNamesWhatIsMissing(t *testing.T) {
	defer func(all []feature) { features = all }(features)
	features = append(features[:len(features):len(features)], feature{"target LEVITATE", "filter", "-j LEVITATE"})
	eachKernel(t, func(t *testing.T, r *Runner) {
		err := r.Supported(context.Background())
		if err == nil || !strings.Contains(err.Error(), "target LEVITATE of "+r.tools.main+" is missing") ||
			strings.Contains(err.Error(), "MASQUERADE") {
			t.Errorf("error is %v", err)
		}
		if got, err := r.Chains(context.Background(), "nat", "SLUICE-"); err != nil || len(got) > 0 {
			t.Errorf("left behind: %v, %v", got, err)
		}
	})
}

func TestNewNamesTheMissingProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, backend := range []Backend{Auto, NFT, Legacy} {
		_, err := New(proxy.IPv6, Config{Backend: backend})
		if !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "ip6tables") {
			t.Errorf("backend %s: error is %v", backend, err)
		}
	}
}

// pathWith makes PATH hold only the programs of a backend, by their plain names.
func pathWith(t *testing.T, backend Backend) {
	t.Helper()
	dir := t.TempDir()
	for _, suffix := range []string{"", "-restore", "-save"} {
		target, err := exec.LookPath(fmt.Sprintf("iptables-%s%s", backend, suffix))
		if err != nil {
			t.Fatal(err)
		}
		if target, err = filepath.EvalSymlinks(target); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(dir, "iptables"+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

func TestPlainNamesServeTheirBackendOnly(t *testing.T) {
	other := map[Backend]Backend{NFT: Legacy, Legacy: NFT}
	for _, backend := range Backends {
		t.Run(string(backend), func(t *testing.T) {
			enterNetns(t)
			pathWith(t, backend)
			for _, asked := range []Backend{Auto, backend} {
				r, err := New(proxy.IPv4, Config{Backend: asked})
				if err != nil {
					t.Fatal(err)
				}
				if r.Backend() != backend {
					t.Errorf("asked for %s: backend is %s", asked, r.Backend())
				}
				mustRestore(t, r, "*nat", ":SLUICE-A - [0:0]", "COMMIT")
			}
			if _, err := New(proxy.IPv4, Config{Backend: other[backend]}); err == nil {
				t.Errorf("%s passed for %s", backend, other[backend])
			}
		})
	}
}

func TestDetect(t *testing.T) {
	hint := "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n"
	canary := "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n"
	rules := "*nat\n:KUBE-SERVICES - [0:0]\n:SLUICE-A - [0:0]\n-A KUBE-SERVICES -j RETURN\n-A SLUICE-A -j RETURN\nCOMMIT\n"
	rule := "*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -j RETURN\nCOMMIT\n"
	plain, err := findPlainTools(context.Background(), proxy.IPv4)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name        string
		nft, legacy string
		want        Backend
	}{
		{"hint in nft", hint, rules, NFT},
		{"hint in legacy", rules, hint, Legacy},
		{"canary in legacy", "", canary, Legacy},
		{"more rules in legacy", rule, rules, Legacy},
		{"more rules in nft", rules, rule, NFT},
		{"nothing", "", "", plain.backend},
		{"the same in both", rules, rules, NFT},
	}
	for _, test := range tests {
		for _, family := range proxy.Families {
			t.Run(test.name+"/"+family.String(), func(t *testing.T) {
				enterNetns(t)
				newRunner(t, family, NFT).foreignRestore(t, test.nft)
				newRunner(t, family, Legacy).foreignRestore(t, test.legacy)
				got, err := Detect(context.Background(), family)
				if err != nil || got != test.want {
					t.Errorf("backend %s instead of %s, error %v", got, test.want, err)
				}
			})
		}
	}
}

func TestNewRefusesUnknownBackends(t *testing.T) {
	if _, err := New(proxy.IPv4, Config{Backend: "ebtables"}); err == nil || !strings.Contains(err.Error(), `backend "ebtables" is none of auto, nft and legacy`) {
		t.Errorf("error is %v", err)
	}
}
