package faults

import (
	"slices"
	"testing"

	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/e2e/vm"
)

// story breaks something under load.
type story struct {
	*testing.T
	*world
	load   *traffic
	before string // before the fault
}

type tale struct {
	name string
	tell func(*story)

	// on are the modes by name in which it is told; nil is all.
	on []string
}

var tales = []tale{
	{"Restart", restart, nil},
	{"Crash", crash, nil},
	{"Upgrade", upgrade, nil},
	{"Frozen", frozen, nil},
	{"Damaged", damaged, nil},
	{"Rewritten", rewritten, nil},
	{"Foreign", foreign, nil},
	{"Locked", locked, []string{"iptables-legacy"}}, // no other takes a lock
	{"APIServerGone", apiServerGone, nil},
	{"EtcdStopped", etcdStopped, nil},
	{"EtcdSlow", etcdSlow, nil},
	{"WatchCut", watchCut, nil},
	{"NodeEdited", nodeEdited, nil},
	{"SysctlsReadOnly", sysctlsReadOnly, nil},
	{"Rebooted", rebooted, nil},
}

// TestFaults tells each story in the same world. Afterwards the kernel holds what it did before.
func TestFaults(t *testing.T) {
	told := tales
	if vm.Here() {
		told = append(told, tale{"ClockJump", clockJump, nil})
	}
	for _, mode := range suite.Modes {
		t.Run(mode.Name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mode)
			for _, s := range told {
				if s.on == nil || slices.Contains(s.on, mode.Name) {
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
