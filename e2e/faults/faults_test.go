package faults

import "testing"

// story breaks something under load.
type story struct {
	*testing.T
	*world
	load   *traffic
	before string // before the fault
}

var stories = []struct {
	name string
	tell func(*story)

	// both is set where the backends of iptables differ in what is broken or how that is noticed.
	both bool
}{
	{"Restart", restart, true},
	{"Crash", crash, true},
	{"Upgrade", upgrade, true},
	{"Frozen", frozen, true},
	{"Damaged", damaged, true},
	{"Rewritten", rewritten, true},
	{"Foreign", foreign, true},
}

// TestFaults tells each story in the same world. Afterwards the kernel holds what it did before.
func TestFaults(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			w := newWorld(t, backend)
			for _, s := range stories {
				if s.both || backend == "nft" {
					t.Run(s.name, func(t *testing.T) { w.tell(t, s.tell) })
				}
			}
			w.wantFresh(t)
		})
	}
}

func (w *world) tell(t *testing.T, tell func(*story)) {
	s := &story{T: t, world: w, load: w.startTraffic(t), before: w.rules(t)}
	tell(s)
	s.load.pass()
	s.awaitRules(t, s.before)
	s.load.end()
}
