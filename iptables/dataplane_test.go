package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/iptables/xtables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/shelf"
)

// v4 is the family of tests to which it does not matter.
var v4 = family(proxy.IPv4)

func numbered(i int, remote ...string) service {
	return service{name: fmt.Sprint("svc", i), clusterIP: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1), remote: remote}
}

func TestEqualSnapshotRunsNothing(t *testing.T) {
	n := v4.node()
	snap := snapshot(n, exposed("externalLocal"))
	d, k := applied(t, snap)
	k.forget()
	same := *n
	same.Addrs, same.Zone = nil, "elsewhere" // nothing that rules depend on
	for _, s := range []*proxy.Snapshot{snap, snap.Next(n, nil), snap.Next(&same, nil)} {
		report := mustApply(t, d, s)
		if len(k.calls) > 0 {
			t.Fatalf("an equal snapshot ran %v", k.calls)
		}
		if report.Full || report.Tables[0].Writes+report.Tables[1].Writes > 0 || report.Tables[0].Objects == 0 {
			t.Errorf("report %+v", report)
		}
	}
}

func TestColdStartServesPriorityFirstAndRefusesLast(t *testing.T) {
	dns := numbered(1, remotePod)
	dns.name, dns.priority = "kube-dns", true
	dead := numbered(3)
	dead.external = []string{"198.51.100.3"}
	_, k := applied(t, snapshot(v4.node(), dns, numbered(2, remotePod), dead))
	if want := []string{"chains", "chains", "chains", "restore", "jumps", "restore"}; !slices.Equal(k.calls, want) {
		t.Fatalf("calls %v, want %v", k.calls, want)
	}
	first, rest := k.inputs[0], k.inputs[1]
	for _, c := range []struct {
		text        string
		first, rest bool
	}{
		{"ns/kube-dns:p", true, true},
		{"ns/svc2:p", false, true},
		{"MASQUERADE", true, false},
		{"REJECT", false, true},
		{"-j DROP", false, true},
	} {
		if strings.Contains(first, c.text) != c.first || strings.Contains(rest, c.text) != c.rest {
			t.Errorf("%q is in the first restore: %v, in the second: %v", c.text, strings.Contains(first, c.text), strings.Contains(rest, c.text))
		}
	}
	if got := k.sections(1); !slices.Equal(got, []string{nat, filter}) {
		t.Errorf("the rest is written to %v: what refuses must come last", got)
	}
}

func TestRestartReplacesInOneRestore(t *testing.T) {
	n := v4.node()
	_, k := applied(t, snapshot(n, exposed("cluster"), numbered(1, remotePod), numbered(2, remotePod)))
	k.forget()
	next := snapshot(n, exposed("externalLocal"), numbered(2, localPod))
	report := mustApply(t, newDataplane(Config{}, k), next)
	if want := []string{"chains", "chains", "chains", "restore", "jumps"}; !slices.Equal(k.calls, want) {
		t.Errorf("calls %v, want %v", k.calls, want)
	}
	if !report.Full {
		t.Error("the report does not tell of a full write")
	}
	if diff := cmp.Diff(fresh(t, next), k.Dump()); diff != "" {
		t.Errorf("unlike a fresh start (-want +got):\n%s", diff)
	}
}

func TestOneChangeWritesTheSameHoweverManyServices(t *testing.T) {
	change := func(n int) (bytes, rules int) {
		var all []service
		for i := range n {
			all = append(all, numbered(i, remotePod, "10.1.1.6"))
		}
		node := v4.node()
		before := snapshot(node, all...)
		d, k := applied(t, before)
		k.forget()
		all[7].remote = []string{remotePod, "10.1.1.7"}
		changed := snapshot(node, all[7])
		update := map[proxy.ServicePortName]*proxy.ServicePort{}
		for name, sp := range changed.All() {
			update[name] = sp
		}
		report := mustApply(t, d, before.Next(node, update))
		if len(k.inputs) != 1 {
			t.Fatalf("%d restores for one change", len(k.inputs))
		}
		return len(k.inputs[0]), report.Tables[0].Writes + report.Tables[1].Writes
	}
	fewBytes, fewRules := change(20)
	manyBytes, manyRules := change(3000)
	if fewBytes != manyBytes || fewRules != manyRules {
		t.Errorf("%d bytes and %d rules for one of 20, %d and %d for one of 3000", fewBytes, fewRules, manyBytes, manyRules)
	}
	// A chain lists up to 16 Services.
	if manyRules > 1+16*2 || manyBytes > 5000 {
		t.Errorf("one backend changed: %d bytes, %d rules", manyBytes, manyRules)
	}
}

func TestAnAddedServiceWritesOnlyItsPath(t *testing.T) {
	var all []service
	for i := range 3000 {
		all = append(all, numbered(i, remotePod))
	}
	node := v4.node()
	before := snapshot(node, all...)
	d, k := applied(t, before)
	k.forget()
	added := map[proxy.ServicePortName]*proxy.ServicePort{}
	for name, sp := range snapshot(node, numbered(3001, remotePod)).All() {
		added[name] = sp
	}
	mustApply(t, d, before.Next(node, added))
	if len(k.inputs) != 1 || len(k.inputs[0]) > 8000 {
		t.Errorf("%d restores, the first of %d bytes", len(k.inputs), len(k.inputs[0]))
	}
}

// TestNoPacketFallsBetweenTables looks at the rules after each commit on the way from one state to
// another. A frontend that both serve or refuse must be served or refused all the time, whether the change is noticed
// when it happens, at a restart, or when what the kernel holds is in doubt.
func TestNoPacketFallsBetweenTables(t *testing.T) {
	served := exposed("cluster")
	empty := served
	empty.local, empty.remote = nil, nil
	localOnly := exposed("externalLocal")
	nobody := localOnly
	nobody.local = nil
	ranges := served
	ranges.ranges = []string{"192.0.2.0/24"}
	states := map[string]service{"served": served, "empty": empty, "local": localOnly, "none local": nobody, "ranges": ranges}
	bothFamilies(t, func(t *testing.T, f family) {
		n := f.node()
		for from, a := range states {
			for to, b := range states {
				for _, how := range []string{"noticed", "in small commits", "restart", "doubt"} {
					d, k := applied(t, snapshot(n, a))
					switch how {
					case "in small commits":
						d.batch = 1
					case "restart":
						d = newDataplane(d.cfg, k)
					case "doubt":
						d.Resync("test")
					}
					tr := k.tracer(t, n)
					k.each = func() {
						for _, who := range []string{"pod", "node", "outside"} {
							for what := range frontends {
								if got := tr.trace(f.from(who, f.frontend(what))); got["pass"] > 0 {
									t.Errorf("%s to %s, %s, %s to %s: %v", from, to, how, who, what, got)
								}
							}
						}
					}
					mustApply(t, d, snapshot(n, b))
				}
			}
		}
	})
}

// TestUntouchedServicesAreServedDuringALargeChange cuts the change of many services into many commits. What is the
// same before and after must be the same after each of them, whatever happens to the tree around it.
func TestUntouchedServicesAreServedDuringALargeChange(t *testing.T) {
	n := v4.node()
	var before, after, kept []service
	for i := range 300 {
		s := numbered(i, remotePod)
		switch i % 3 {
		case 0:
			kept = append(kept, s)
			before, after = append(before, s), append(after, s)
		case 1:
			before = append(before, s)
		default:
			after = append(after, s)
		}
	}
	for _, way := range [][2][]service{{before, after}, {kept, after}, {after, kept}} {
		d, k := applied(t, snapshot(n, way[0]...))
		d.batch = 5
		tr := k.tracer(t, n)
		commits := 0
		k.each = func() {
			commits++
			for _, s := range kept {
				got := tr.trace(v4.from("pod", v4.port(s.clusterIP, 80)))
				if want := v4.port(remotePod, 8080).String(); got[want] != 1 {
					t.Fatalf("after commit %d: %s: %v", commits, s.clusterIP, got)
				}
			}
		}
		mustApply(t, d, snapshot(n, way[1]...))
		if commits < 5 {
			t.Errorf("%d commits: the change was not large", commits)
		}
	}
}

// refusing makes iptables refuse every rule that mentions one of the words.
func refusing(k *kernel, words ...string) {
	k.Refuse = func(_, _, rule string) string {
		for _, w := range words {
			if strings.Contains(rule, w) {
				return "Invalid argument"
			}
		}
		return ""
	}
}

func setAside(report proxy.Report) (names []string) {
	for _, s := range report.SetAside {
		names = append(names, s.Name.Name)
	}
	return names
}

func TestRefusedServiceIsSetAsideAndTheRestServed(t *testing.T) {
	for _, blind := range []bool{false, true} {
		for _, start := range []string{"cold", "restart", "running"} {
			t.Run(fmt.Sprintf("%s, blind %v", start, blind), func(t *testing.T) {
				n := v4.node()
				var all []service
				for i := range 20 {
					all = append(all, numbered(i, remotePod))
				}
				k := newKernel(proxy.IPv4)
				d := newDataplane(Config{}, k)
				switch start {
				case "restart":
					mustApply(t, newDataplane(Config{}, k), snapshot(n, all[:10]...))
				case "running":
					mustApply(t, d, snapshot(n, all[:10]...))
				}
				all[4].remote, all[13].remote = []string{"10.9.9.9"}, []string{"10.9.9.9"}
				k.Blind = blind
				refusing(k, "10.9.9.9")
				k.forget()
				report := mustApply(t, d, snapshot(n, all...))
				if diff := cmp.Diff([]string{"svc13", "svc4"}, setAside(report)); diff != "" {
					t.Fatalf("set aside (-want +got):\n%s", diff)
				}
				if report.Again <= 0 || report.Again > time.Minute {
					t.Errorf("another try is due in %v", report.Again)
				}
				if report.SetAside[0].Err == nil {
					t.Error("no reason is given")
				}
				good := slices.DeleteFunc(slices.Clone(all), func(s service) bool { return s.remote[0] == "10.9.9.9" })
				if diff := cmp.Diff(fresh(t, snapshot(n, good...)), k.Dump()); diff != "" {
					t.Errorf("unlike the others alone (-want +got):\n%s", diff)
				}
				limit := 40
				if !blind {
					limit = 8 // the refused line tells
				}
				if attempts := len(k.inputs); attempts > limit {
					t.Errorf("%d restores to find 2 of 20", attempts)
				}
			})
		}
	}
}

func TestRefusedFrontendIsFoundByItsLine(t *testing.T) {
	for _, word := range []string{"198.51.100.7/32", "31999", "203.0.113.9/32"} {
		n := v4.node()
		var all []service
		for i := range 12 {
			all = append(all, numbered(i, remotePod))
		}
		odd := service{name: "odd", clusterIP: "10.96.9.9", external: []string{"198.51.100.7", "198.51.100.8"}, nodePort: 31999,
			lbs: []string{"198.51.100.9"}, ranges: []string{"203.0.113.9/32"}}
		for _, odd.remote = range [][]string{nil, {remotePod}} {
			k := newKernel(proxy.IPv4)
			d := newDataplane(Config{}, k)
			mustApply(t, d, snapshot(n))
			refusing(k, word)
			k.forget()
			report := mustApply(t, d, snapshot(n, append(all, odd)...))
			if got := setAside(report); !slices.Equal(got, []string{"odd"}) || len(k.inputs) > 2 {
				t.Errorf("refused %q: set aside %v after %d restores", word, got, len(k.inputs))
			}
		}
	}
}

// TestRefusalsOfAFailedApplyAreRemoved fails between the tables: filter then holds chains that belong neither to the
// old state nor to the new one, but to the passage between them.
func TestRefusalsOfAFailedApplyAreRemoved(t *testing.T) {
	n := v4.node()
	var before, after []service
	for i := range 6 {
		dead := numbered(i)
		dead.external = []string{fmt.Sprintf("198.51.%d.1", 100+i)}
		before = append(before, dead)
		dead = numbered(10+i, remotePod)
		dead.lbs, dead.ranges = []string{fmt.Sprintf("198.51.%d.1", 200+i)}, []string{"192.0.2.0/24"}
		after = append(after, dead)
	}
	d, k := applied(t, snapshot(n, before...))
	k.fail = func(section string) error {
		if strings.HasPrefix(section, "*nat\n") {
			return &xtables.RestoreError{Resource: true, Output: "no memory", Err: errors.New("exit status 4")}
		}
		return nil
	}
	if _, err := d.Apply(t.Context(), snapshot(n, after...)); err == nil {
		t.Fatal("no error")
	}
	k.fail = nil
	mustApply(t, d, snapshot(n, before...))
	if diff := cmp.Diff(fresh(t, snapshot(n, before...)), k.Dump()); diff != "" {
		t.Errorf("unlike a fresh start (-want +got):\n%s", diff)
	}
}

// TestJumpsOfAFailedApplyComeBack has a node that no longer serves NodePorts at loopback addresses, and then does
// again: the jumps that guard those were removed before the write that failed.
func TestJumpsOfAFailedApplyComeBack(t *testing.T) {
	guarded, open := *v4.node(), v4.node()
	guarded.NodePorts.Localhost = true
	want := snapshot(&guarded, numbered(0, remotePod))
	d, k := applied(t, want)
	k.fail = func(string) error {
		return &xtables.RestoreError{Resource: true, Output: "no memory", Err: errors.New("exit status 4")}
	}
	if _, err := d.Apply(t.Context(), snapshot(open, numbered(0, remotePod))); err == nil {
		t.Fatal("no error")
	}
	if jumps := strings.Join(k.Rules(filter, "INPUT"), "\n"); strings.Contains(jumps, firewallChain) {
		t.Fatalf("the jumps were not removed:\n%s", jumps)
	}
	k.fail = nil
	mustApply(t, d, want)
	if diff := cmp.Diff(fresh(t, want), k.Dump()); diff != "" {
		t.Errorf("unlike a fresh start (-want +got):\n%s", diff)
	}
}

func TestInterruptedColdStartGoesOn(t *testing.T) {
	n := v4.node()
	snap := snapshot(n, numbered(1, remotePod), numbered(2))
	k := newKernel(proxy.IPv4)
	d := newDataplane(Config{}, k)
	k.fail = func(section string) error {
		if strings.Contains(section, "svc1") {
			return &xtables.RestoreError{Resource: true, Output: "lock", Err: errors.New("exit status 4")}
		}
		return nil
	}
	if _, err := d.Apply(t.Context(), snap); err == nil {
		t.Fatal("no error")
	}
	k.fail = nil
	k.forget()
	report := mustApply(t, d, snap)
	if !report.Full || !slices.Equal(k.calls, []string{"restore"}) || !slices.Equal(k.sections(0), []string{nat, filter}) {
		t.Errorf("calls %v, report %+v", k.calls, report)
	}
	if diff := cmp.Diff(fresh(t, snap), k.Dump()); diff != "" {
		t.Errorf("unlike a fresh start (-want +got):\n%s", diff)
	}
}

func TestSetAsideServiceIsTriedAgain(t *testing.T) {
	n := v4.node()
	bad := numbered(1, "10.9.9.9")
	k := newKernel(proxy.IPv4)
	refusing(k, "10.9.9.9")
	d := newDataplane(Config{}, k)
	now := time.Unix(0, 0)
	d.now = func() time.Time { return now }
	snap := snapshot(n, numbered(0, remotePod), bad)
	mustApply(t, d, snap)

	k.forget()
	now = now.Add(shelf.RetryAfter - time.Second)
	if report := mustApply(t, d, snap); len(report.SetAside) != 1 || len(k.calls) > 0 || report.Again != time.Second {
		t.Fatalf("before its time: %+v, calls %v", report, k.calls)
	}
	now = now.Add(time.Second)
	if report := mustApply(t, d, snap); len(report.SetAside) != 1 || len(k.calls) == 0 || report.Again != shelf.RetryAfter {
		t.Fatalf("in vain: %+v, calls %v", report, k.calls)
	}
	k.Refuse = nil
	now = now.Add(shelf.RetryAfter)
	if report := mustApply(t, d, snap); len(report.SetAside) != 0 || report.Again != 0 {
		t.Fatalf("when nothing is wrong any more: %+v", report)
	}
	if diff := cmp.Diff(fresh(t, snap), k.Dump()); diff != "" {
		t.Errorf("unlike a fresh start (-want +got):\n%s", diff)
	}
}

// A kernel that lacks a module may refuse hundreds.
func TestManySetAsideServicesAreNotAllTriedAgain(t *testing.T) {
	n := v4.node()
	var all []service
	for i := range 60 {
		s := numbered(i, remotePod)
		if i%2 == 0 {
			s.protocol = proxy.SCTP
		}
		all = append(all, s)
	}
	k := newKernel(proxy.IPv4)
	d := newDataplane(Config{}, k)
	now := time.Now()
	d.now = func() time.Time { return now }
	refusing(k, "-p sctp")
	want := snapshot(n, all...)
	mustApply(t, d, want)
	tried := map[string]bool{}
	for range 40 {
		now = now.Add(shelf.RetryAfter)
		k.forget()
		report := mustApply(t, d, want)
		if len(report.SetAside) != 30 || len(k.inputs) > 3 {
			t.Fatalf("%d set aside after %d restores", len(report.SetAside), len(k.inputs))
		}
		for _, s := range report.SetAside {
			tried[s.Name.Name] = tried[s.Name.Name] || strings.Contains(k.inputs[0], "ns/"+s.Name.Name+":p ")
		}
	}
	for name, was := range tried {
		if !was {
			t.Errorf("%s was never tried again", name)
		}
	}
	k.Refuse = nil
	now = now.Add(shelf.RetryAfter)
	if report := mustApply(t, d, want); len(report.SetAside) > 0 {
		t.Errorf("still set aside: %v", setAside(report))
	}
	if diff := cmp.Diff(fresh(t, want), k.Dump()); diff != "" {
		t.Errorf("unlike a fresh start (-want +got):\n%s", diff)
	}
}

func TestSetAsideServiceThatChangesIsTriedAtOnce(t *testing.T) {
	n := v4.node()
	k := newKernel(proxy.IPv4)
	refusing(k, "10.9.9.9")
	d := newDataplane(Config{}, k)
	mustApply(t, d, snapshot(n, numbered(0, remotePod), numbered(1, "10.9.9.9")))
	want := snapshot(n, numbered(0, remotePod), numbered(1, localPod))
	if report := mustApply(t, d, want); len(report.SetAside) > 0 || report.Again != 0 {
		t.Errorf("still set aside: %+v", report)
	}
	if diff := cmp.Diff(fresh(t, want), k.Dump()); diff != "" {
		t.Errorf("unlike a fresh start (-want +got):\n%s", diff)
	}
}

func TestRefusedRuleOfNobodyIsAnError(t *testing.T) {
	for _, blind := range []bool{false, true} {
		k := newKernel(proxy.IPv4)
		k.Blind = blind
		refusing(k, "MASQUERADE")
		d := newDataplane(Config{}, k)
		snap := snapshot(v4.node(), numbered(0, remotePod))
		report, err := d.Apply(t.Context(), snap)
		var refused *xtables.RestoreError
		if !errors.As(err, &refused) || len(report.SetAside) > 0 {
			t.Errorf("error %v, report %+v", err, report)
		}
		k.Refuse = nil
		mustApply(t, d, snap)
		if diff := cmp.Diff(fresh(t, snap), k.Dump()); diff != "" {
			t.Errorf("unlike a fresh start (-want +got):\n%s", diff)
		}
	}
}

func TestTakenLockBlamesNobody(t *testing.T) {
	k := newKernel(proxy.IPv4)
	d := newDataplane(Config{}, k)
	k.FailRate = 1
	report, err := d.Apply(t.Context(), snapshot(v4.node(), numbered(0, remotePod)))
	if err == nil || len(report.SetAside) > 0 {
		t.Errorf("error %v, report %+v", err, report)
	}
}

// A node whose kernel lacks a module must not need a restore for each ServicePort that asks for it.
func TestManyOffendersOfAKindAreFoundTogether(t *testing.T) {
	for _, blind := range []bool{false, true} {
		for _, c := range []struct {
			bad, good   int
			affinity    bool // a second kind of offenders
			most, blind int  // restores
		}{
			{bad: 2, good: 300, most: 8, blind: 15},
			{bad: 20, good: 300, most: 45, blind: 50},
			{bad: 300, good: 300, most: 16, blind: 17},
			{bad: 300, good: 300, affinity: true, most: 30, blind: 29},
			{bad: 2000, good: 1, affinity: true, most: 30, blind: 29},
		} {
			t.Run(fmt.Sprintf("%+v, blind %v", c, blind), func(t *testing.T) {
				n := v4.node()
				var all []service
				var want []string
				for i := range c.bad + c.good {
					s := numbered(i, remotePod)
					// Both are found anywhere in the order of names.
					if bad := i*c.bad/(c.bad+c.good) != (i+1)*c.bad/(c.bad+c.good); bad {
						s.protocol = proxy.SCTP
						if c.affinity && i%2 == 0 {
							s.protocol, s.affinity = proxy.TCP, time.Hour
						}
						want = append(want, s.name)
					}
					all = append(all, s)
				}
				k := newKernel(proxy.IPv4)
				k.Blind = blind
				refusing(k, "-p sctp", "-m recent")
				report := mustApply(t, newDataplane(Config{}, k), snapshot(n, all...))
				got := setAside(report)
				slices.Sort(want)
				slices.Sort(got)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("set aside (-want +got):\n%s", diff)
				}
				most := c.most
				if blind {
					most = c.blind
				}
				if len(k.inputs) > most {
					t.Errorf("%d restores, want at most %d", len(k.inputs), most)
				}
			})
		}
	}
}

func TestSearchIsLimited(t *testing.T) {
	n := v4.node()
	var all []service
	for i := range 400 {
		s := numbered(i, remotePod)
		if i%2 == 0 {
			s.remote = []string{"10.9.9.9"}
		}
		all = append(all, s)
	}
	k := newKernel(proxy.IPv4)
	k.Blind = true
	refusing(k, "10.9.9.9")
	d := newDataplane(Config{}, k)
	report := mustApply(t, d, snapshot(n, all...))
	if len(report.SetAside) < 200 || len(k.inputs) > maxTrials+20 {
		t.Errorf("%d set aside after %d restores", len(report.SetAside), len(k.inputs))
	}
}

// TestChainThatOthersUseHindersNothing has somebody's rule jump to a chain of ours that is not wanted any more.
func TestChainThatOthersUseHindersNothing(t *testing.T) {
	for _, blind := range []bool{false, true} {
		n := v4.node()
		before := snapshot(n, numbered(0, remotePod), numbered(1, many("10.1.2.", fewRules+1)...))
		after := snapshot(n, numbered(0, localPod))
		d, k := applied(t, before)
		k.Blind = blind
		chain := chainOf(serviceChain, proxy.ServicePortName{Namespace: "ns", Name: "svc1", Port: "p", Protocol: proxy.TCP})
		foreign := "*nat\n:FOREIGN - [0:0]\n-A FOREIGN -j " + chain + "\nCOMMIT\n"
		if err := k.Fake.Restore(t.Context(), []byte(foreign)); err != nil {
			t.Fatal(err)
		}
		report := mustApply(t, d, after)
		if len(report.SetAside) > 0 {
			t.Errorf("set aside: %+v", report)
		}
		if rules := k.Rules(nat, chain); rules == nil || len(rules) > 0 {
			t.Errorf("the chain that others use has rules %q", rules)
		}
		if err := k.Fake.Restore(t.Context(), []byte("*nat\n-F FOREIGN\n-X FOREIGN\nCOMMIT\n")); err != nil {
			t.Fatal(err)
		}
		d.Resync("test")
		mustApply(t, d, after)
		if diff := cmp.Diff(fresh(t, after), k.Dump()); diff != "" {
			t.Errorf("unlike a fresh start once nobody uses it (-want +got):\n%s", diff)
		}
	}
}

func TestLingeringChainThatIsWantedAgainIsNotDeleted(t *testing.T) {
	l := lingering{nat: {"A", "B"}}
	s := newSection(nat)
	s.new.begin("A")
	s.compare()
	s.remove("C")
	l.note(s, true)
	if diff := cmp.Diff(lingering{nat: {"B", "C"}}, l); diff != "" {
		t.Errorf("lingering (-want +got):\n%s", diff)
	}
}

func TestMarkChainOfOthersIsLeftAlone(t *testing.T) {
	k := newKernel(proxy.IPv4)
	kubelet := "*nat\n:KUBE-MARK-MASQ - [0:0]\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\nCOMMIT\n"
	if err := k.Fake.Restore(context.Background(), []byte(kubelet)); err != nil {
		t.Fatal(err)
	}
	d := newDataplane(Config{}, k)
	mustApply(t, d, snapshot(v4.node(), numbered(0, remotePod)))
	if got := k.Rules(nat, markChain); !slices.Equal(got, []string{"-j MARK --or-mark 0x4000"}) {
		t.Errorf("%s is now %q", markChain, got)
	}
}

func TestRepairAfterFlush(t *testing.T) {
	for _, foreign := range []string{
		"*nat\n-F\nCOMMIT\n",
		"*nat\n-F\n-X\nCOMMIT\n*filter\n-F\n-X\nCOMMIT\n",
		"*filter\n-D SLUICE-REFUSE 1\nCOMMIT\n",
		"*nat\n-D PREROUTING 1\nCOMMIT\n",
	} {
		snap := snapshot(v4.node(), exposed("cluster"), numbered(1))
		d, k := applied(t, snap)
		if err := k.Fake.Restore(t.Context(), []byte(foreign)); err != nil {
			t.Fatal(err)
		}
		k.forget()
		d.Resync("test")
		report := mustApply(t, d, snap)
		if diff := cmp.Diff(fresh(t, snap), k.Dump()); diff != "" {
			t.Errorf("after %q unlike a fresh start (-want +got):\n%s", foreign, diff)
		}
		if !report.Full || len(k.inputs) != 1 {
			t.Errorf("after %q: %d restores, report %+v", foreign, len(k.inputs), report)
		}
	}
}

// A change may come before it is known that somebody has deleted our chains.
func TestChangeAfterAnUnseenFlushBlamesNobody(t *testing.T) {
	lb := service{name: "lb", clusterIP: "10.96.9.9", lbs: []string{"198.51.100.9"}, ranges: []string{"203.0.113.0/28"}, remote: []string{remotePod}}
	n := v4.node()
	d, k := applied(t, snapshot(n, lb, numbered(1, remotePod)))
	if err := k.Fake.Restore(t.Context(), []byte("*nat\n-F\n-X\nCOMMIT\n")); err != nil {
		t.Fatal(err)
	}
	lb.ranges = []string{"203.0.113.16/28"}
	want := snapshot(n, lb, numbered(1, remotePod))
	if report := mustApply(t, d, want); len(report.SetAside) > 0 {
		t.Errorf("set aside: %v", report.SetAside)
	}
	if diff := cmp.Diff(fresh(t, want), k.Dump()); diff != "" {
		t.Errorf("unlike a fresh start (-want +got):\n%s", diff)
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	_, k := applied(t, snapshot(v4.node(), exposed("externalLocal"), numbered(1)))
	if err := cleanup(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if got := k.Dump(); got != "" {
		t.Errorf("left:\n%s", got)
	}
	k.forget()
	if err := cleanup(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(k.calls, "restore") {
		t.Error("a clean-up of nothing writes")
	}
}

func TestCleanupLeavesTheMarkChainToOthers(t *testing.T) {
	for name, foreign := range map[string]string{
		"a rule jumps to it":   "*nat\n:CNI - [0:0]\n-A CNI -j KUBE-MARK-MASQ\nCOMMIT\n",
		"an old kubelet is":    "*nat\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-MARK-DROP - [0:0]\nCOMMIT\n",
		"kube-proxy is around": "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n",
	} {
		_, k := applied(t, snapshot(v4.node(), numbered(1, remotePod)))
		if err := k.Fake.Restore(t.Context(), []byte(foreign)); err != nil {
			t.Fatal(err)
		}
		if err := cleanup(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		if len(k.Rules(nat, markChain)) == 0 {
			t.Errorf("%s: %s is gone", name, markChain)
		}
		if strings.Contains(k.Dump(), xtables.DefaultPrefix) {
			t.Errorf("%s: left\n%s", name, k.Dump())
		}
	}
}

func TestCleanupTakesTheMarkChainFromKubelet(t *testing.T) {
	_, k := applied(t, snapshot(v4.node(), numbered(1, remotePod)))
	if err := k.Fake.Restore(t.Context(), []byte("*nat\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n")); err != nil {
		t.Fatal(err)
	}
	if err := cleanup(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if got := k.Dump(); strings.Contains(got, markChain) || !strings.Contains(got, kubeletsCanary) {
		t.Errorf("left:\n%s", got)
	}
}

func TestReportCountsWhatWasHandedOverAndRefused(t *testing.T) {
	n := v4.node()
	k := newKernel(proxy.IPv4)
	d := newDataplane(Config{}, k)
	report := mustApply(t, d, snapshot(n, numbered(1, remotePod)))
	if report.Bytes == 0 || report.Refusals != 0 {
		t.Errorf("first load: %d bytes, %d refusals; want some and none", report.Bytes, report.Refusals)
	}
	report = mustApply(t, d, snapshot(n, numbered(1, remotePod)))
	if report.Bytes != 0 {
		t.Errorf("nothing changed: %d bytes", report.Bytes)
	}
	refusing(k, "10.1.9.9")
	report = mustApply(t, d, snapshot(n, numbered(1, remotePod), numbered(2, "10.1.9.9")))
	if report.Refusals == 0 || len(report.SetAside) != 1 {
		t.Errorf("a refused service: %d refusals, %d set aside; want some and 1", report.Refusals, len(report.SetAside))
	}
}
