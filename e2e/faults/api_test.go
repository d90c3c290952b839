package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// The node as the API server sees it.
var nodeAtPlane = "192.168.60.1"

// drop makes the control plane's machine lose packets of the node, silently, until heal.
func (s *story) drop(match ...string) (heal func()) {
	s.Helper()
	script := "add table inet cut; add chain inet cut in { type filter hook input priority 0; }; " +
		"add chain inet cut out { type filter hook output priority 0; }"
	for _, m := range match {
		script += fmt.Sprintf("; add rule inet cut in ip saddr %s tcp dport 6443 %s drop", nodeAtPlane, m)
		script += fmt.Sprintf("; add rule inet cut out ip daddr %s tcp sport 6443 %s drop", nodeAtPlane, strings.ReplaceAll(m, "sport", "dport"))
	}
	if _, err := s.Remote.Run("nft", script); err != nil {
		s.Fatal(err)
	}
	return func() {
		if _, err := s.Remote.Run("nft", "delete table inet cut"); err != nil {
			s.Fatal(err)
		}
	}
}

// apiServerGone: the API server is away for some time. When it is back Sluice cannot reach it yet, and misses a
// change.
func apiServerGone(s *story) {
	s.plane.StopAPIServer()
	s.load.pass(16)
	heal := s.drop("")
	if err := s.plane.StartAPIServer(s.Context()); err != nil {
		s.Fatal(err)
	}
	s.endpoints(s.T, s.moving, targetPort, s.remote())
	s.load.pass()
	if err := s.healthy(); err != nil {
		s.Error(err)
	}
	heal()
	s.awaitMoved(s.T, s.remote())
	s.moves(s.T, s.local())
}

// etcdStopped: requests hang and fail, watches say nothing.
func etcdStopped(s *story) {
	s.plane.PauseEtcd()
	ctx, cancel := context.WithTimeout(s.Context(), time.Second)
	defer cancel()
	if err := s.writeSlice(ctx, s.slice(s.moving, proxy.IPv4, targetPort, s.backends()[1:2])); err == nil {
		s.Error("the API server wrote something without etcd")
	}
	s.load.pass(8)
	if err := s.healthy(); err != nil {
		s.Error(err)
	}
	s.plane.ResumeEtcd()
	s.moves(s.T, s.remote())
	s.moves(s.T, s.local())
}

// etcdSlow: what changes comes late, and whole.
func etcdSlow(s *story) {
	goOn := s.plane.SlowEtcd()
	defer goOn()
	for _, to := range []*lab.Host{s.remote(), s.local()} {
		s.moves(s.T, to)
		s.load.pass()
	}
	if err := s.healthy(); err != nil {
		s.Error(err)
	}
}

// watchCut: a firewall on the way forgets Sluice's connections. Nothing comes over them any more, not even their end;
// new ones are let through.
func watchCut(s *story) {
	out, err := s.Remote.Run("ss", "-Htn", "state", "established", "sport = :6443 and dst "+nodeAtPlane)
	if err != nil {
		s.Fatal(err)
	}
	var ports []string
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		peer := words[len(words)-1]
		ports = append(ports, "tcp sport "+peer[strings.LastIndexByte(peer, ':')+1:])
	}
	if len(ports) == 0 {
		s.Fatalf("no connection of Sluice's in %q", out)
	}
	heal := s.drop(ports...)
	defer heal()
	s.moves(s.T, s.remote())
	s.moves(s.T, s.local())
}
