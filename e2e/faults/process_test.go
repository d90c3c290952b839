package faults

import (
	"fmt"
	"strings"
	"syscall"
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
