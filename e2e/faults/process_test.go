package faults

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/sluice-proxy/sluice/e2e/suite"
)

// restart: not a connection is lost while Sluice is away, nor when it comes back.
func restart(s *story) {
	s.stop(s.T)
	s.load.pass()
	s.start(s.T)
}

func crash(s *story) {
	s.sluice.Kill()
	s.load.pass()
	s.start(s.T)
}

// upgrade: for a while both processes hold the rules for theirs. Each takes the writes of the other for damage, and
// mends it, more and more slowly.
func upgrade(s *story) {
	old := s.sluice.Process
	s.launch(s.T, s.command()...)
	s.awaitApplied()
	s.load.pass(2)
	if err := old.Stop(); err != nil {
		s.Errorf("old process: %v", err)
	}
	s.awaitHealthy(s.T)
	s.load.pass()
	s.moves(s.T, s.remote())
	s.moves(s.T, s.local())
	s.logRepairs()
	s.wantCalm()
}

// awaitApplied waits until the newest process wrote the rules of both families.
func (s *story) awaitApplied() {
	s.Helper()
	eventually(s.T, "new process writes", func() error {
		if n := strings.Count(s.said(s.T), "Applied snapshot"); n < 2 {
			return fmt.Errorf("%d snapshots applied", n)
		}
		return nil
	})
}

func (s *story) logRepairs() { s.Logf("repairs: %v", s.repairs(s.T)) }

// wantCalm waits for a time without repairs: the load passes and nothing is mended.
func (s *story) wantCalm() {
	s.Helper()
	eventually(s.T, "no more repairs", func() error {
		before := s.repairs(s.T)
		s.load.pass()
		if after := s.repairs(s.T); after != before {
			return fmt.Errorf("%v repairs", after-before)
		}
		return nil
	})
}

// frozen: the machine of a process stands still and goes on later, as when it is moved or suspended. To the process
// time jumps.
func frozen(s *story) {
	s.sluice.Signal(syscall.SIGSTOP)
	s.endpoints(s.T, s.moving, targetPort, s.remote())
	s.load.pass(4)
	s.sluice.Signal(syscall.SIGCONT)
	s.awaitMoved(s.T, s.remote())
	s.moves(s.T, s.local())
	s.awaitHealthy(s.T)
}

// anotherMode: a start in another mode serves before it removes what the former one left, and so does the way back.
// Only clients with affinity may get another backend.
func anotherMode(s *story) {
	i := slices.IndexFunc(suite.Modes, func(m suite.Mode) bool { return m.Mode != s.mode.Mode })
	other := suite.Modes[i]
	for _, change := range [][2]suite.Mode{{s.mode, other}, {other, s.mode}} {
		over := s.load.excuse(sticky)
		s.stop(s.T)
		s.start(s.T, change[1].Flags...)
		s.awaitNothing(kernels[change[0].Mode])
		s.load.forget()
		over()
		s.load.pass()
		s.moves(s.T, s.remote())
		s.moves(s.T, s.local())
	}
}

// awaitNothing waits until nothing of a mode is left.
func (s *story) awaitNothing(k kernel) {
	s.Helper()
	eventually(s.T, "rules of the former mode are gone", func() error {
		rules, err := k.rules(s.world)
		if err == nil && rules != "" {
			err = errors.New(rules)
		}
		return err
	})
}
