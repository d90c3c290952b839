package kernel

import (
	"context"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Timeouts are idle times after which IPVS forgets connections, in both families. 0 leaves what is there.
type Timeouts struct{ TCP, TCPFin, UDP time.Duration }

// Of the kernel's linux/ip_vs.h.
const (
	cmdSetConfig = 12
	cmdGetConfig = 13

	attrTimeoutTCP    = 4
	attrTimeoutTCPFin = 5
	attrTimeoutUDP    = 6
)

// seconds are the timeouts by attribute, rounded up.
func (t Timeouts) seconds() map[uint16]uint32 {
	all := map[uint16]uint32{}
	for attr, d := range map[uint16]time.Duration{attrTimeoutTCP: t.TCP, attrTimeoutTCPFin: t.TCPFin, attrTimeoutUDP: t.UDP} {
		if d > 0 {
			all[attr] = uint32((d + time.Second - 1) / time.Second)
		}
	}
	return all
}

// differ tells whether those that the kernel has are others than asked for.
func (t Timeouts) differ(have map[uint16]uint32) bool {
	for attr, n := range t.seconds() {
		if have[attr] != n {
			return true
		}
	}
	return false
}

// SetTimeouts sets the timeouts that are others than asked for, and tells whether it did.
func (k *IPVS) SetTimeouts(ctx context.Context, t Timeouts) (bool, error) {
	want := t.seconds()
	if len(want) == 0 {
		return false, nil
	}
	s, err := dial(ctx)
	if err != nil {
		return false, fmt.Errorf("set timeouts of IPVS: %w", err)
	}
	defer s.close()
	have, err := s.timeouts(ctx)
	if err != nil || !t.differ(have) {
		return false, err
	}
	_, err = s.ask(ctx, netlink.Acknowledge, cmdSetConfig, func(ae *netlink.AttributeEncoder) {
		for attr, n := range want {
			ae.Uint32(attr, n)
		}
	})
	if err != nil {
		return false, fmt.Errorf("set timeouts of IPVS: %w", err)
	}
	return true, nil
}

// HasTimeouts tells whether the timeouts are those asked for.
func (l *Look) HasTimeouts(ctx context.Context, t Timeouts) (bool, error) {
	if len(t.seconds()) == 0 {
		return true, nil
	}
	if err := l.open(ctx); err != nil {
		return false, err
	}
	have, err := l.socket.timeouts(ctx)
	if err != nil {
		l.Close()
		return false, err
	}
	return !t.differ(have), nil
}

// timeouts are those of the kernel by attribute.
func (s *socket) timeouts(ctx context.Context) (map[uint16]uint32, error) {
	answers, err := s.ask(ctx, 0, cmdGetConfig, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return nil, fmt.Errorf("read timeouts of IPVS: %w", err)
	}
	have := map[uint16]uint32{}
	for _, m := range answers {
		if len(m.Data) < genlHeader {
			return nil, errMalformed
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[genlHeader:])
		if err != nil {
			return nil, err
		}
		for ad.Next() {
			have[ad.Type()] = ad.Uint32()
		}
	}
	return have, nil
}

const genlHeader = unix.GENL_HDRLEN
