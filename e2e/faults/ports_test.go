package faults

import (
	"errors"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// ports are those of a host, one after the other: none has two connections at a time, or again within minutes. IPVS may mix up their
// answers, and when it forgets a connection the kernel forgets whatever has the same addresses and ports by then.
type ports struct{ used atomic.Uint32 }

const (
	firstPort = 33000 // above those of NodePorts and streams
	manyPorts = 27000
)

func portsOf(hosts []*lab.Host) map[string]*ports {
	all := map[string]*ports{}
	for _, h := range hosts {
		all[h.Name] = &ports{}
	}
	return all
}

func (p *ports) next() uint16 { return uint16(firstPort + p.used.Add(1)%manyPorts) }

// probe is Host.Probe, from a port of the host's own where that matters.
func (tr *traffic) probe(h *lab.Host, p lab.Probe) lab.Outcome {
	return tr.bound(h, p, h.Probe)
}

// connect is Host.Connect, in the same way.
func (tr *traffic) connect(h *lab.Host, p lab.Probe) (conn *lab.Conn, o lab.Outcome) {
	o = tr.bound(h, p, func(p lab.Probe) lab.Outcome {
		conn, o = h.Connect(p)
		return o
	})
	return conn, o
}

// bound lets something be done from a port that nobody else on the host uses.
func (tr *traffic) bound(h *lab.Host, p lab.Probe, do func(lab.Probe) lab.Outcome) lab.Outcome {
	own := tr.own[h.Name]
	if own == nil {
		return do(p)
	}
	addr := p.From.Addr()
	if !addr.IsValid() {
		addr = proxy.FamilyOf(p.To.Addr()).Any()
	}
	var o lab.Outcome
	for range manyPorts {
		p.From = netip.AddrPortFrom(addr, own.next())
		if o = do(p); !errors.Is(o.Err, unix.EADDRINUSE) {
			break
		}
	}
	return o
}
