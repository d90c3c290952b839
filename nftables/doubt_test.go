package nftables

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// watched is a namespace with a dataplane that is being watched.
type watched struct {
	t      *testing.T
	f      inFamily
	fam    string
	d      *dataplane
	want   *proxy.Snapshot
	log    bytes.Buffer
	doubts chan string
}

func watch(t *testing.T, f inFamily, ns *lab.Namespace) *watched {
	t.Helper()
	w := &watched{t: t, f: f, fam: string(nft.Family(proxy.Family(f))), want: snapshot(f.node(), crowd(30)...), doubts: make(chan string, 100)}
	w.d = made(t, f)
	w.apply()
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		if err := ns.Do(func() error { return w.d.Watch(ctx, func(reason string) { w.doubts <- reason }) }); err != nil {
			t.Errorf("watch ended: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); watching.Wait() })
	w.awaitWatch()
	return w
}

// apply applies what is wanted, and gives what it logged meanwhile.
func (w *watched) apply() string {
	w.t.Helper()
	w.log.Reset()
	log := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&w.log)))
	report, err := w.d.Apply(klog.NewContext(w.t.Context(), log), w.want)
	if err != nil || len(report.SetAside) > 0 {
		w.t.Fatalf("%v, set aside: %v", err, report.SetAside)
	}
	return w.log.String()
}

// awaitWatch returns when doubts come.
func (w *watched) awaitWatch() {
	w.t.Helper()
	for len(w.doubts) == 0 {
		w.nft("add element %s cluster-ips { %s }", w.f.addr("192.0.2.1"))
		w.nft("delete element %s cluster-ips { %s }", w.f.addr("192.0.2.1"))
		time.Sleep(time.Millisecond)
	}
	w.alone("the beginning", "cluster-ips")
}

// nft runs a command whose first %s is the table.
func (w *watched) nft(command string, args ...any) {
	w.t.Helper()
	runNFT(w.t, fmt.Sprintf(command, append([]any{w.fam + " " + Table}, args...)...))
}

// next waits for a doubt, for as long as no machine is that slow.
func (w *watched) next() string {
	w.t.Helper()
	select {
	case reason := <-w.doubts:
		return reason
	case <-time.After(time.Minute):
		w.t.Fatal("no doubt came")
		return ""
	}
}

// alone wants no doubt until now that is not about one thing.
func (w *watched) alone(when, about string) {
	w.t.Helper()
	w.nft("add chain %s stray")
	w.nft("delete chain %s stray")
	for {
		reason := w.next()
		if strings.Contains(reason, "deleted chain stray") {
			return
		}
		if !strings.Contains(reason, "chain stray") && (about == "" || !strings.Contains(reason, about)) {
			w.t.Errorf("%s: unexpected doubt: %s", when, reason)
		}
	}
}

func TestKernelHarmIsNoticedNamedAndMended(t *testing.T) {
	table := func(w *watched, command string) { w.nft(command) }
	tests := []struct {
		name   string
		harm   func(w *watched)
		reason string
		found  []string // of the log when it is mended
	}{
		{"ruleset flushed", func(w *watched) { runNFT(w.t, "flush", "ruleset") }, "deleted table sluice", []string{`missing="all of it"`}},
		{"table deleted", func(w *watched) { table(w, "delete table %s") }, "deleted table sluice", []string{`missing="all of it"`}},
		{"chain flushed", func(w *watched) { table(w, "flush chain %s nat-prerouting") }, "deleted a rule in chain nat-prerouting of table sluice",
			[]string{`altered="chain nat-prerouting"`, `missing=""`, `foreign=""`}},
		{"base chain deleted", func(w *watched) {
			table(w, "flush chain %s learn-output")
			table(w, "delete chain %s learn-output")
		}, "chain learn-output", []string{`unlike="chain learn-output"`}},
		{"set deleted", func(w *watched) {
			table(w, "flush chain %s nat-postrouting")
			table(w, "delete set %s hairpin")
		}, "nat-postrouting", []string{`unlike="set hairpin"`}},
		{"map flushed", func(w *watched) { table(w, "flush map %s services") }, "deleted an element in set services of table sluice",
			[]string{`missing="map services { `, ` more"`, `altered=""`}},
		{"element deleted", func(w *watched) { w.nft("delete element %s cluster-ips { %s }", w.f.addr("10.96.1.7")) },
			"deleted an element in set cluster-ips of table sluice", []string{"of ns/s6", `foreign=""`}},
		{"element added", func(w *watched) { w.nft("add element %s cluster-ips { %s }", w.f.addr("192.0.2.7")) },
			"wrote an element in set cluster-ips of table sluice", []string{`missing=""`, `foreign="set cluster-ips { `}},
		{"rule added", func(w *watched) { table(w, "insert rule %s filter-forward drop") }, "wrote a rule in chain filter-forward",
			[]string{`altered="chain filter-forward"`}},
		{"chain added", func(w *watched) { table(w, "add chain %s other") }, "wrote chain other of table sluice", []string{`missing=""`}},
	}
	eachWatched(t, func(w *watched) {
		for _, test := range tests {
			test.harm(w)
			reason := w.next()
			if !strings.Contains(reason, "nft (pid ") || !strings.Contains(reason, test.reason) {
				w.t.Errorf("%s: reason is %q, want nft, its process number and %q", test.name, reason, test.reason)
			}
			w.d.Resync(reason)
			log := w.apply()
			for _, part := range test.found {
				if !strings.Contains(log, part) {
					w.t.Errorf("%s: the log says %q, and not %q", test.name, log, part)
				}
			}
			if again := w.apply(); again != "" {
				w.t.Errorf("%s: told twice: %s", test.name, again)
			}
			w.d.now = func() time.Time { return time.Now().Add(2 * idleTime) }
			w.apply() // the chain that was added goes
			w.d.now = time.Now
			wantFresh(w.t, w.f, w.want)
			for len(w.doubts) > 0 {
				<-w.doubts // a harm of two commits
			}
		}
	})
}

func TestKernelOwnCommitsAndThoseToTablesOfOthersRaiseNoDoubt(t *testing.T) {
	eachWatched(t, func(w *watched) {
		others := []string{
			"add table " + w.fam + " other",
			"add chain " + w.fam + " other services { type filter hook input priority 0; }",
			"add table inet sluice",
			"add set inet sluice cluster-ips { type ipv4_addr; }",
			"delete table inet sluice",
			"delete table " + w.fam + " other",
		}
		for i, command := range others {
			runNFT(w.t, command)
			w.want = snapshot(w.f.node(), crowd(30+10*i)...)
			w.apply()
		}
		// In IPv6 the rules that remember clients are written without nft.
		w.want = snapshot(w.f.node(), append(crowd(30), service{name: "other", clusterIP: "10.96.9.9", affinity: 7 * time.Minute, backends: backendsFrom(1, 3)})...)
		w.apply()
		w.d.Resync("")
		w.apply()
		w.alone("own commits", "")
	})
}

func eachWatched(t *testing.T, test func(w *watched)) {
	for _, f := range proxy.Families {
		t.Run(fmt.Sprint(f), func(t *testing.T) {
			ns, err := lab.NewNamespace()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ns.Close() })
			if err := ns.Do(func() error { test(watch(t, inFamily(f), ns)); return nil }); err != nil {
				t.Fatal(err)
			}
		})
	}
}
