package ipvs_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
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

// reuse is a load by clients that use each of their ports again and again.
type reuse struct {
	*site
	*rollout
	done, viaService, straight atomic.Int64 // connections, and those whose first packet was sent again
}

// TestKernelPortsAreUsedAgain has clients use a few hundred ports for thousands of connections, without a pause, while
// backends are replaced. None of them may reach a backend that was gone when it began. And none should wait for its first packet to be
// sent again, which clients do after a second: as the machine itself may be that slow, as many go straight to a pod. Where IPVS
// does not reuse ports each one waits; a handful does in any case. They are of clients that had reset their last connection, and
// that connection tracking still took for alive: the kernel drops the first packet then, and only forgets the old connection.
func TestKernelPortsAreUsedAgain(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		const ports, connections = 300, 3000
		a, b := s.Pods[0], s.Pods[1]
		r := &reuse{site: s, rollout: &rollout{}}
		r.enter([]*lab.Host{a})
		s.serve(s.web(proxy.TCP, s.pods(a)))
		var load sync.WaitGroup
		for _, from := range []*lab.Host{s.Client, s.Node} {
			// Nobody waits with a port that was used: the server and IPVS have to cope.
			s.must(from.Sysctl(map[string]string{"net/ipv4/tcp_max_tw_buckets": "0"}))
			for worker := range uint16(2) {
				load.Go(func() {
					for n := uint16(0); r.done.Add(1) <= connections; n++ {
						port := 20000 + worker*ports/2 + n%(ports/2)
						if err := r.connect(from, port, n%4 < 2, n%2 == 0); err != nil {
							t.Errorf("connection %d of %s from port %d: %v", n, from.Name, port, err)
						}
					}
				})
			}
		}
		both := []*lab.Host{a, b}
		rounds := 0
		for ; r.done.Load() < connections; rounds++ {
			r.enter(both)
			s.serve(s.web(proxy.TCP, s.pods(both...)))
			time.Sleep(moment)
			next := both[(rounds+1)%2]
			s.serve(s.web(proxy.TCP, s.pods(next)))
			r.enter([]*lab.Host{next})
			time.Sleep(moment)
		}
		load.Wait()
		if rounds < 3 {
			t.Errorf("the backends were replaced only %d times", rounds)
		}
		t.Logf("%d rounds; of %d connections %d through the Service and %d straight to a pod took a second",
			rounds, connections, r.viaService.Load(), r.straight.Load())
		if r.viaService.Load() > r.straight.Load()+connections/2/100 {
			t.Error("more than one in a hundred connections had to wait because of the Service")
		}
	})
}

// connect makes a connection from a port, to the Service or straight to a pod, and ends it in order or at once.
func (r *reuse) connect(from *lab.Host, port uint16, viaService, inOrder bool) error {
	phase, began := r.now(), time.Now()
	to, stalled := r.in(vip, 80), &r.viaService
	if !viaService {
		// From another port: to the backend both would be one connection.
		to, port, stalled = r.pods(r.Pods[0])[0].Addr, port+10000, &r.straight
	}
	c, o := from.Connect(lab.Probe{To: to, Protocol: proxy.TCP, From: netip.AddrPortFrom(from.Addr(r.family), port), Timeout: patience})
	if c == nil {
		return errors.New(o.String())
	}
	defer c.Close()
	if o.Resent && time.Since(began) > 900*time.Millisecond {
		stalled.Add(1)
		r.t.Logf("%s from port %d, through the Service: %v, took a second, in phase %d of the rollout", from.Name, port, viaService, phase)
	}
	if viaService && !r.allows(o.Server, phase) {
		return fmt.Errorf("it reached %s, which was gone", o.Server)
	}
	if inOrder {
		return c.Finish(patience)
	}
	return nil
}
