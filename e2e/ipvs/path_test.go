package ipvs_test

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// echo serves a port of a host, and gives back what it gets.
func (s *site) echo(h *lab.Host, port uint16) {
	s.t.Helper()
	l, err := h.Listen(s.t.Context(), "tcp", netip.AddrPortFrom(h.Addr(s.family), port).String())
	s.must(err)
	s.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
}

// TestKernelLongSegmentsFitTheWay sends much data in both directions over a link that is narrower than both ends know.
func TestKernelLongSegmentsFitTheWay(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		pod := s.Pods[0]
		s.echo(pod, 9090)
		backend := []proxy.Backend{{Addr: netip.AddrPortFrom(pod.Addr(s.family), 9090), Local: true}}
		s.serve(s.web(proxy.TCP, backend))
		s.run("ip link set dev " + pod.Name + " mtu 1300")
		for _, h := range []*lab.Host{s.Client, pod, s.Pods[1]} {
			_, err := h.Run("ip", "link", "set", "dev", "eth0", "gso_max_segs", "1") // a packet of many segments is never too long
			s.must(err)
		}
		for _, from := range []*lab.Host{s.Client, s.Node, s.Pods[1]} {
			c, err := from.DialContext(t.Context(), "tcp", s.text(vip, 80))
			s.must(err)
			if err := exchange(c, bytes.Repeat([]byte("0123456789abcdef"), 10_000)); err != nil {
				t.Errorf("from %s: %v", from.Name, err)
			}
		}
	})
}

// exchange sends data and wants it back.
func exchange(c net.Conn, data []byte) error {
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	go func() { _, _ = c.Write(data) }()
	_, err := io.ReadFull(c, make([]byte, len(data)))
	return err
}
