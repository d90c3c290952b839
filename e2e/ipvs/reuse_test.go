package ipvs_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// rollout is which backends may answer, as it goes on.
type rollout struct {
	lock   sync.Mutex
	phases [][]*lab.Host
}

func (r *rollout) enter(phase []*lab.Host) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.phases = append(r.phases, phase)
}

func (r *rollout) now() int {
	r.lock.Lock()
	defer r.lock.Unlock()
	return len(r.phases) - 1
}

// allows tells whether a backend could be reached at some time since a phase.
func (r *rollout) allows(server string, since int) bool {
	r.lock.Lock()
	defer r.lock.Unlock()
	return slices.ContainsFunc(slices.Concat(r.phases[since:]...), func(h *lab.Host) bool { return h.Name == server })
}

// TestKernelPortsAreUsedAgain has clients use a few hundred ports for thousands of connections, without a pause, while
// backends are replaced. None of them may reach a backend that was gone when it began, and none may wait for its first packet to
// be sent again, which clients do after a second.
func TestKernelPortsAreUsedAgain(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		const ports, connections = 300, 2000
		a, b := s.Pods[0], s.Pods[1]
		r := &rollout{}
		r.enter([]*lab.Host{a})
		s.serve(s.web(proxy.TCP, s.pods(a)))
		var done atomic.Int64
		var load sync.WaitGroup
		for _, from := range []*lab.Host{s.Client, s.Node} {
			// Nobody waits with a port that was used: the server and IPVS have to cope.
			s.must(from.Sysctl(map[string]string{"net/ipv4/tcp_max_tw_buckets": "0"}))
			for worker := range uint16(2) {
				load.Go(func() {
					for n := uint16(0); done.Add(1) <= connections; n++ {
						port := 20000 + worker*ports/2 + n%(ports/2)
						if err := s.useOnce(from, port, r, n%2 == 0); err != nil {
							t.Errorf("connection %d of %s from port %d: %v", n, from.Name, port, err)
						}
					}
				})
			}
		}
		rounds := 0
		for next := []*lab.Host{b}; done.Load() < connections; next = []*lab.Host{[]*lab.Host{a, b}[rounds%2]} {
			both := []*lab.Host{a, b}
			r.enter(both)
			s.serve(s.web(proxy.TCP, s.pods(both...)))
			time.Sleep(moment)
			s.serve(s.web(proxy.TCP, s.pods(next...)))
			r.enter(next)
			time.Sleep(moment)
			rounds++
		}
		load.Wait()
		if rounds < 3 {
			t.Errorf("the backends were replaced only %d times", rounds)
		}
		for _, from := range []*lab.Host{s.Client, s.Node} {
			if n := s.firstPacketsAgain(from); n > 0 {
				t.Errorf("%s sent %d first packets again", from.Name, n)
			}
		}
	})
}

// useOnce makes a connection from a port, and ends it in order or at once.
func (s *site) useOnce(from *lab.Host, port uint16, r *rollout, inOrder bool) error {
	began := r.now()
	c, o := from.Connect(lab.Probe{
		To: s.in(vip, 80), Protocol: proxy.TCP, From: netip.AddrPortFrom(from.Addr(s.family), port), Timeout: patience,
	})
	if c == nil {
		return errors.New(o.String())
	}
	defer c.Close()
	if !r.allows(o.Server, began) {
		return fmt.Errorf("it reached %s, which was gone", o.Server)
	}
	if inOrder {
		return c.Finish(patience)
	}
	return nil
}

// firstPacketsAgain is how many first packets of TCP connections a host has sent more than once.
func (s *site) firstPacketsAgain(from *lab.Host) int {
	s.t.Helper()
	out, err := from.Run("cat", "/proc/net/netstat")
	s.must(err)
	lines := strings.Split(out, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if j := slices.Index(names, "TCPSynRetrans"); j >= 0 {
			n, err := strconv.Atoi(values[j])
			s.must(err)
			return n
		}
	}
	s.t.Fatal("the kernel does not count TCPSynRetrans")
	return 0
}
