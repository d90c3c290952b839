package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// Set is an ipset. Sluice has none, kube-proxy's mode ipvs has.
type Set struct {
	Name    string
	Members []Member
}

// Member is an element of a Set, as far as it is an address, a port, or both.
type Member struct {
	Addr     netip.Addr
	Port     uint16
	Protocol proxy.Protocol
}

// Of the kernel's linux/netfilter/ipset/ip_set.h.
const (
	ipsetSubsystem = 6
	ipsetVersion   = 6 // that the kernel has understood since 2.6.39

	ipsetDestroy = 3
	ipsetList    = 7

	ipsetProtocol = 1
	ipsetName     = 2
	ipsetData     = 7
	ipsetMembers  = 8

	memberIP       = 1
	memberPort     = 4
	memberProtocol = 7

	ipsetBusy = unix.Errno(4100)
)

// ipsetModule is there when the kernel has ipsets. To ask for them would load the module.
const ipsetModule = "/sys/module/ip_set"

// maxDumps is how often a listing begins anew because it was disturbed.
const maxDumps = 10

// Sets lists the ipsets that are wanted.
func Sets(wanted func(name string) bool) ([]Set, error) {
	if _, err := os.Stat(ipsetModule); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for range maxDumps {
		answers, err := askSets(ipsetList, netlink.Dump, "")
		if err != nil {
			return nil, fmt.Errorf("list ipsets: %w", err)
		}
		if disturbed(answers) {
			continue
		}
		all, err := decodeSets(answers, wanted)
		if err != nil {
			return nil, fmt.Errorf("list ipsets: %w", err)
		}
		return all, nil
	}
	return nil, errors.New("list ipsets: they change all the time")
}

func disturbed(answers []netlink.Message) bool {
	for _, m := range answers {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return true
		}
	}
	return false
}

// RemoveSet removes an ipset. That it is gone already is no error.
func RemoveSet(name string) error {
	_, err := askSets(ipsetDestroy, netlink.Acknowledge, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, ipsetBusy):
		return fmt.Errorf("remove ipset %s: rules of others use it", name)
	case err != nil:
		return fmt.Errorf("remove ipset %s: %w", name, err)
	}
	return nil
}

// askSets sends a command about a set, or about all.
func askSets(command int, flags netlink.HeaderFlags, name string) ([]netlink.Message, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	ae := netlink.NewAttributeEncoder()
	ae.Uint8(ipsetProtocol, ipsetVersion)
	if name != "" {
		ae.String(ipsetName, name)
	}
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(ipsetSubsystem<<8 | command), Flags: netlink.Request | flags},
		Data:   append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
}

// decodeSets joins the parts in which the kernel lists sets.
func decodeSets(answers []netlink.Message, wanted func(name string) bool) ([]Set, error) {
	var all []Set
	for _, m := range answers {
		ad, err := netlink.NewAttributeDecoder(m.Data[min(4, len(m.Data)):])
		if err != nil {
			return nil, err
		}
		var part Set
		for ad.Next() {
			switch ad.Type() {
			case ipsetName:
				part.Name = ad.String()
			case ipsetMembers:
				ad.Nested(part.decode)
			}
		}
		if err := ad.Err(); err != nil {
			return nil, err
		}
		switch last := len(all) - 1; {
		case part.Name == "" || !wanted(part.Name):
		case last >= 0 && all[last].Name == part.Name:
			all[last].Members = append(all[last].Members, part.Members...)
		default:
			all = append(all, part)
		}
	}
	return all, nil
}

// decode reads members.
func (s *Set) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() != ipsetData {
			continue
		}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			var m Member
			for ad.Next() {
				switch ad.Type() {
				case memberIP:
					ad.Nested(m.decodeAddr)
				case memberPort:
					m.Port = portOf(ad.Bytes())
				case memberProtocol:
					m.Protocol = proxy.Protocol(ad.Uint8())
				}
			}
			s.Members = append(s.Members, m)
			return nil
		})
	}
	return nil
}

func (m *Member) decodeAddr(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		m.Addr, _ = netip.AddrFromSlice(ad.Bytes())
	}
	return nil
}
