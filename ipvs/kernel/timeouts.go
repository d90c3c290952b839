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
	answers, err := s.ask(ctx, 0, cmdGetConfig, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return false, fmt.Errorf("read timeouts of IPVS: %w", err)
	}
	have := map[uint16]uint32{}
	for _, m := range answers {
		if len(m.Data) < genlHeader {
			return false, errMalformed
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[genlHeader:])
		if err != nil {
			return false, err
		}
		for ad.Next() {
			have[ad.Type()] = ad.Uint32()
		}
	}
	differs := false
	for attr, n := range want {
		differs = differs || have[attr] != n
	}
	if !differs {
		return false, nil
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

const genlHeader = unix.GENL_HDRLEN
