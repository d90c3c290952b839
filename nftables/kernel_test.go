package nftables

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// wide is a Service with every kind of frontend and n backends.
func wide(n int) service {
	return service{
		name: "web", clusterIP: "10.96.0.10", external: "203.0.113.10", ranges: []string{"198.51.100.0/24"}, nodePort: 30000,
		affinity: time.Hour, backends: backendsFrom(1, n),
	}
}

// writes is how many elements and rules an Apply wrote.
func writes(r proxy.Report) int { return r.Tables[0].Writes }

// What one endpoint costs does not depend on how many there are.
func TestKernelChangeOfOneEndpointTouchesFewElements(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		n := f.node()
		costs := func(backends int, sticky time.Duration) (all []int) {
			s := wide(backends)
			s.affinity = sticky
			if err := tableOf(f).Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			d := newTestDataplane(f)
			mustApply(t, d, snapshot(n, s))
			for _, change := range []func(){
				func() { s.backends = slices.Delete(slices.Clone(s.backends), backends/2, backends/2+1) },
				func() { s.backends = append(slices.Clone(s.backends), backendsFrom(5000, 1)...) },
				func() { s.backends = append(slices.Clone(s.backends[1:]), backendsFrom(6000, 1)...) },
			} {
				change()
				report := mustApply(t, d, snapshot(n, s))
				if report.Full {
					t.Error("everything was read")
				}
				all = append(all, writes(report))
			}
			return all
		}
		for _, affinity := range []time.Duration{0, time.Hour} {
			few, many := costs(20, affinity), costs(1000, affinity)
			if diff := cmp.Diff(few, many); diff != "" {
				t.Errorf("affinity %v: writes for a removed, an added and a replaced endpoint of 20 (-) and of 1,000 (+):\n%s", affinity, diff)
			}
			for _, n := range many {
				if n == 0 || n > 20 {
					t.Errorf("affinity %v: %v writes, want a few for each of three frontends", affinity, many)
				}
			}
		}
	})
}

// crowd is services of all kinds.
func crowd(n int) []service {
	var all []service
	for i := range n {
		s := service{
			name:      fmt.Sprint("s", i),
			clusterIP: fmt.Sprintf("10.96.%d.%d", 1+i/200, i%200+1),
			backends:  backendsFrom(i*7, i%9),
		}
		if i%3 == 0 {
			s.nodePort = uint16(30000 + i)
		}
		if i%4 == 0 {
			s.external = fmt.Sprintf("203.0.%d.%d", 100+i/200, i%200+1)
		}
		if i%8 == 0 {
			s.ranges = []string{"198.51.100.0/24", "198.51.100.128/25"}
		}
		if i%5 == 0 {
			s.affinity = time.Duration(1+i%3) * time.Minute
		}
		s.externalLocal = i%6 == 0
		all = append(all, s)
	}
	return all
}

func generation(t *testing.T) uint32 {
	t.Helper()
	n, err := nfwatch.CurrentGeneration()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKernelRestartWritesNothing(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		want := snapshot(f.node(), crowd(200)...)
		mustApply(t, newTestDataplane(f), want)
		held, before := read(t, f), generation(t)
		report := mustApply(t, newTestDataplane(f), want)
		if n := writes(report); n != 0 || generation(t) != before {
			t.Errorf("%d writes, generation %d after %d", n, generation(t), before)
		}
		if diff := cmp.Diff(held, read(t, f)); diff != "" {
			t.Errorf("what is held has changed:\n%s", diff)
		}
	})
}

// An endpoint that went while nobody watched costs a successor what it would have cost the process before.
func TestKernelRestartWritesWhatHasChanged(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		before, after := crowd(200), crowd(200)
		after[53].backends = after[53].backends[1:]
		after[54].backends = nil
		after = slices.Delete(after, 55, 56)
		mustApply(t, newTestDataplane(f), snapshot(f.node(), before...))
		report := mustApply(t, newTestDataplane(f), snapshot(f.node(), after...))
		if n := writes(report); n == 0 || n > 30 {
			t.Errorf("%d writes for three Services", n)
		}
		wantFresh(t, f, snapshot(f.node(), after...))
	})
}

func TestKernelClientsSurviveRestartAndChanges(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		s := wide(20)
		d := newTestDataplane(f)
		mustApply(t, d, snapshot(f.node(), s))
		client := fmt.Sprintf("add element %s %s %s { 1:0 . %v timeout 1h : 1:7 }", nft.Family(proxy.Family(f)), Table, affinity.Name, f.addr("198.51.100.7"))
		runNFT(t, client)
		remembered := func() bool {
			list := runNFT(t, "list", "map", string(nft.Family(proxy.Family(f))), Table, affinity.Name)
			return strings.Contains(list, f.addr("198.51.100.7").String())
		}
		s.backends = append(s.backends[5:], backendsFrom(400, 20)...)
		for name, d := range map[string]*dataplane{"change": d, "restart": newTestDataplane(f)} {
			if mustApply(t, d, snapshot(f.node(), s)); !remembered() {
				t.Errorf("%s: the client is forgotten", name)
			}
		}
	})
}

// A table that another version left goes when this version's comes: at one moment.
func TestKernelOtherLayoutIsReplacedAtOnce(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		fam := string(nft.Family(proxy.Family(f)))
		for name, table := range map[string]string{
			"set of another type":  "set cluster-ips { type inet_service; };",
			"unknown set":          "set older { type inet_service; };",
			"unknown base chain":   "chain older { type filter hook input priority 5; drop; };",
			"hook of another time": "chain filter-input { type filter hook input priority 7; };",
			"empty table":          "",
		} {
			runNFT(t, fmt.Sprintf("table %s %s { %s }", fam, Table, table))
			before := generation(t)
			want := snapshot(f.node(), crowd(30)...)
			mustApply(t, newTestDataplane(f), want)
			// In IPv6 the rules that change elements come in a transaction of their own.
			if n := generation(t) - before; n > 1+uint32(f) {
				t.Errorf("%s: %d transactions", name, n)
			}
			if state := read(t, f); len(state.Unlike) > 0 {
				t.Errorf("%s: the table is as it was: %v", name, state.Unlike)
			}
			wantFresh(t, f, want)
			if err := tableOf(f).Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestKernelForeignTablesAreLeftAlone(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		runNFT(t, "table inet sluice { chain c { type filter hook input priority 0; }; }; table ip kube-proxy { set s { type ipv4_addr; }; }")
		before := runNFT(t, "list", "ruleset")
		mustApply(t, newTestDataplane(f), snapshot(f.node(), crowd(10)...))
		if err := NewMode(Config{}).Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, runNFT(t, "list", "ruleset")); diff != "" {
			t.Errorf("(-before +after):\n%s", diff)
		}
	})
}

// Whoever looks for a Service in the table finds all of it.
func TestKernelElementsNameTheirService(t *testing.T) {
	inKernels(t, func(t *testing.T, f inFamily) {
		s := wide(3)
		mustApply(t, newTestDataplane(f), snapshot(f.node(), append(crowd(20), s)...))
		for name, list := range read(t, f).Elements {
			for _, e := range list {
				ours := strings.Contains(e.Key, f.addr(s.clusterIP).String()) || strings.Contains(e.Key, f.addr(s.external).String()) ||
					strings.Contains(e.Key, "30000")
				if ours && !strings.HasPrefix(e.Comment, "ns/web") {
					t.Errorf("%s: %s has the comment %q", name, e.Key, e.Comment)
				}
				if e.Comment == "" {
					t.Errorf("%s: %s has no comment", name, e.Key)
				}
			}
		}
	})
}

// TestKernelChurnEndsAsAFreshBuild makes 100,000 random changes of endpoints.
func TestKernelChurnEndsAsAFreshBuild(t *testing.T) {
	const applies, changes = 500, 100 // for each family
	inKernels(t, func(t *testing.T, f inFamily) {
		random := rand.New(rand.NewPCG(1, uint64(f)))
		n, all := f.node(), crowd(60)
		d, want := newTestDataplane(f), snapshot(n, all...)
		mustApply(t, d, want)
		for range applies {
			next := map[proxy.ServicePortName]*proxy.ServicePort{}
			for range changes {
				i := random.IntN(len(all))
				all[i].backends = mutate(random, all[i].backends)
				for _, sp := range resolve(all[i], n) {
					next[sp.Name] = sp
				}
			}
			want = want.Next(n, next)
			if report := mustApply(t, d, want); report.Full {
				t.Fatal("the table was read")
			}
		}
		d.now = func() time.Time { return time.Now().Add(2 * idleTime) }
		mustApply(t, d, want)
		wantFresh(t, f, want)
	})
}
