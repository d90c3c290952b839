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

	// on is a backend of iptables, or "" where the two differ in what is broken or how that is noticed.
	on string
}{
	{"Restart", restart, ""},
	{"Crash", crash, ""},
	{"Upgrade", upgrade, ""},
	{"Frozen", frozen, "nft"},
	{"Damaged", damaged, ""},
	{"Rewritten", rewritten, ""},
	{"Foreign", foreign, ""},
	{"Locked", locked, "legacy"},
	{"APIServerGone", apiServerGone, "legacy"},
	{"EtcdStopped", etcdStopped, "legacy"},
	{"WatchCut", watchCut, "nft"},
	{"NodeEdited", nodeEdited, "nft"},
	{"SysctlsReadOnly", sysctlsReadOnly, "nft"},
	{"Rebooted", rebooted, ""},
}

// TestFaults tells each story in the same world. Afterwards the kernel holds what it did before.
func TestFaults(t *testing.T) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, backend)
			for _, s := range stories {
				if s.on == "" || s.on == backend {
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
