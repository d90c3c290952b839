package proxytest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// Harness is a mode under test.
type Harness struct {
	Mode proxy.Mode

	// Scenarios to play; nil is Scenarios().
	Scenarios []Scenario

	// Families to play; nil is both.
	Families []proxy.Family

	// Firewall sets, in the node's namespace that it is called in, the policies of INPUT and FORWARD to
	// drop what nobody accepts but for established connections and loopback in INPUT, or takes that
	// back. Nil: the mode accepts nothing on behalf of others, and scenarios with a firewall are left out.
	Firewall func(f proxy.Family, on bool) error

	// Except are packets that the mode is not asked to pass. All others of the same scenario are sent.
	Except []Exception

	// OwnPorts gives each connection a source port that no other had for long. Without it clients choose: they may use one
	// port for connections to two frontends at once, and the kernel may take one for the other if they share a backend.
	OwnPorts bool

	// Forget ends, in the node's namespace that it is called in, connections that the kernel remembers for the mode
	// and not in its connection tracking. Nil: there are none. It is called before each scenario.
	Forget func() error

	// Relayed says that the mode's rules do not serve NodePorts on 127.0.0.1, and that the program relays them.
	Relayed bool

	// Neighbour starts another proxy on the node of a lab, which ends with the test; nil: there is none. It follows each step
	// before the mode does, or after it: by turns, and in IPv6 the other way round than in IPv4.
	Neighbour func(t testing.TB, l *lab.Lab) Neighbour

	// Dump shows, in the node's namespace that it is called in, what the mode left in the kernel. It is
	// logged when a scenario fails.
	Dump func(f proxy.Family) string

	// Workers is how many scenarios are played at the same time, each in a lab of its own; 0: 4.
	// Most of the time is spent waiting for packets that must not arrive.
	Workers int

	// hasty gives up as soon as after a moment, for scenarios that are meant to fail.
	hasty bool
}

// Exception is some packets of a scenario that a mode cannot treat as it should, and why.
type Exception struct {
	Scenario string   // its name
	Packets  []string // lines of its steps, without the comment; nil: the scenario is not played at all
	Why      string
}

// How long to wait for packets that must arrive, and for those that must not. A packet that comes
// later than a moment makes a test pass that should fail, never the other way round.
var (
	patience = lab.Patient(10 * time.Second)
	moment   = lab.Patient(300 * time.Millisecond)
)

func (h *Harness) patience() time.Duration {
	if h.hasty {
		return moment
	}
	return patience
}

// scenarios are those to play.
func (h *Harness) scenarios() []Scenario {
	if h.Scenarios == nil {
		return Scenarios()
	}
	return h.Scenarios
}

// families are those to play.
func (h *Harness) families() []proxy.Family {
	if h.Families == nil {
		return proxy.Families[:]
	}
	return h.Families
}

// job is a scenario in a family.
type job struct {
	family   proxy.Family
	scenario Scenario
}

// name is the name of the job's subtest.
func (j job) name() string { return fmt.Sprintf("%v/%s", j.family, j.scenario.Name) }

// Run plays every scenario that the mode can be asked to pass, each as a subtest. It needs root.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if void := h.void(); len(void) > 0 {
		t.Fatalf("no scenario has these packets, which are excepted:\n%s", strings.Join(void, "\n"))
	}
	all := h.jobs()
	for _, e := range h.Except {
		what := fmt.Sprintf("%d packets are not sent", len(e.Packets))
		if e.Packets == nil {
			what = "not played"
		}
		t.Logf("%s: %s: %s", e.Scenario, what, e.Why)
	}
	t.Logf("%d scenarios for mode %s, counting each family", len(all), h.Mode.Name())
	jobs := make(chan job, len(all))
	for _, j := range all {
		jobs <- j
	}
	close(jobs)
	workers := h.Workers
	if workers == 0 {
		workers = 4
	}
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			sites := map[lab.Config]*site{}
			for j := range jobs {
				t.Run(j.name(), func(sub *testing.T) { h.play(sub, h.siteFor(t, sites, j.scenario), j) })
			}
		})
	}
	wait.Wait()
}

// excepts tells whether a packet of a scenario is an exception.
func (h *Harness) excepts(scenario string, p packet) bool {
	return slices.ContainsFunc(h.Except, func(e Exception) bool {
		return e.Scenario == scenario && slices.Contains(e.Packets, p.text)
	})
}

// leavesOut tells whether a scenario is not played at all.
func (h *Harness) leavesOut(scenario string) bool {
	return slices.ContainsFunc(h.Except, func(e Exception) bool { return e.Scenario == scenario && e.Packets == nil })
}

// void are the exceptions that concern no packet of any scenario.
func (h *Harness) void() []string {
	lines := map[string]bool{}
	for _, s := range Scenarios() {
		lines[s.Name] = true
		for _, step := range s.Steps {
			packets, _ := parsePackets(proxy.IPv4, step.Packets)
			for _, p := range packets {
				lines[s.Name+": "+p.text] = true
			}
		}
	}
	var void []string
	for _, e := range h.Except {
		if !lines[e.Scenario] {
			void = append(void, e.Scenario)
		}
		for _, p := range e.Packets {
			if line := e.Scenario + ": " + p; !lines[line] {
				void = append(void, line)
			}
		}
	}
	return void
}

// jobs are all scenarios that the mode can be asked to pass.
func (h *Harness) jobs() []job {
	var all []job
	for _, s := range h.scenarios() {
		for _, f := range h.families() {
			if s.in(f) && !h.leavesOut(s.Name) && (!s.Firewall || h.Firewall != nil) {
				all = append(all, job{f, s})
			}
		}
	}
	return all
}

// site is where a worker plays.
type site struct {
	*lab.Lab
	neighbour Neighbour // nil: there is none
}

// siteFor is the worker's site for a scenario. It ends with the whole test.
func (h *Harness) siteFor(t *testing.T, sites map[lab.Config]*site, s Scenario) *site {
	cfg := lab.Config{Bridge: s.Node.Detect == ByBridge}
	if sites[cfg] == nil {
		sites[cfg] = &site{Lab: lab.Start(t, cfg)}
		if h.Neighbour != nil {
			sites[cfg].neighbour = h.Neighbour(t, sites[cfg].Lab)
		}
	}
	return sites[cfg]
}
