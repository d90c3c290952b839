package xtables

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// One rule that iptables cannot express makes it refuse to list the chain and the table that hold it, though
// it still writes there. What follows asks the kernel itself, and gets to know no more of a rule than where it leads.

// nativeRule is a rule of backend nft, named as the kernel names it.
type nativeRule struct {
	table, chain string
	handle       uint64 // never used twice in a table
	target       string // the chain that it leads to, or ""
}

// String is the rule in the words of iptables-save, as far as it is known.
func (n nativeRule) String() string {
	if n.target == "" {
		return "-A " + n.chain
	}
	return fmt.Sprintf("-A %s -j %s", n.chain, quote(n.target))
}

// nativeContents is what parseSave would find. A table that does not exist is empty.
func nativeContents(ctx context.Context, family proxy.Family, table, prefix string) (contents, error) {
	var found contents
	err := undisturbed(ctx, func() error {
		found = newContents()
		err := dump(ctx, family, unix.NFT_MSG_GETCHAIN, nil, func(m nfwatch.Message) {
			if m.Text(unix.NFTA_CHAIN_TABLE) == table {
				found.addChain(m.Text(unix.NFTA_CHAIN_NAME), prefix)
			}
		})
		if err != nil {
			return err
		}
		return dumpRules(ctx, family, table, "", func(m nfwatch.Message) {
			if chain := m.Text(unix.NFTA_RULE_CHAIN); !found.addOwn(chain, prefix) {
				found.addForeign(chain, targetOfRule(m), prefix)
			}
		})
	})
	return found, err
}

// nativeRules are the rules of a chain, in order; none if it does not exist.
func nativeRules(ctx context.Context, family proxy.Family, table, chain string) ([]nativeRule, error) {
	var rules []nativeRule
	err := undisturbed(ctx, func() error {
		rules = nil
		return dumpRules(ctx, family, table, chain, func(m nfwatch.Message) {
			rules = append(rules, nativeRule{table, chain, handleOf(m), targetOfRule(m)})
		})
	})
	return rules, err
}

// deleteNative deletes rules, all or none, and lets Watch know that it was us.
func deleteNative(ctx context.Context, family proxy.Family, rules []nativeRule, c *nfwatch.Children) error {
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	c.StartSocket(conn.PID())
	batch := []netlink.Message{batchEdge(unix.NFNL_MSG_BATCH_BEGIN)}
	for _, rule := range rules {
		m, err := request(unix.NFT_MSG_DELRULE, netlink.Acknowledge, family,
			textAttr(unix.NFTA_RULE_TABLE, rule.table), textAttr(unix.NFTA_RULE_CHAIN, rule.chain),
			netlink.Attribute{Type: unix.NFTA_RULE_HANDLE, Data: binary.BigEndian.AppendUint64(nil, rule.handle)})
		if err != nil {
			return err
		}
		batch = append(batch, m)
	}
	if _, err := conn.SendMessages(append(batch, batchEdge(unix.NFNL_MSG_BATCH_END))); err != nil {
		return err
	}
	for range rules {
		if _, err := conn.Receive(); err != nil {
			return err
		}
	}
	return nil
}

// undisturbed repeats a look at the kernel until there was no commit meanwhile.
func undisturbed(ctx context.Context, look func() error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		before, err := nfwatch.CurrentGeneration()
		if err != nil {
			return err
		}
		if err := look(); err != nil {
			return err
		}
		after, err := nfwatch.CurrentGeneration()
		if err != nil || before == after {
			return err
		}
	}
}

// dumpRules calls f with the rules of a table, or only those of a chain of it.
func dumpRules(ctx context.Context, family proxy.Family, table, chain string, f func(nfwatch.Message)) error {
	filter := []netlink.Attribute{textAttr(unix.NFTA_RULE_TABLE, table)}
	if chain != "" {
		filter = append(filter, textAttr(unix.NFTA_RULE_CHAIN, chain))
	}
	return dump(ctx, family, unix.NFT_MSG_GETRULE, filter, func(m nfwatch.Message) {
		// Old kernels do not filter.
		if m.Text(unix.NFTA_RULE_TABLE) == table && (chain == "" || m.Text(unix.NFTA_RULE_CHAIN) == chain) {
			f(m)
		}
	})
}

// dump calls f with every object of a kind, as they come: all rules of a table are never held at once.
func dump(ctx context.Context, family proxy.Family, kind uint16, filter []netlink.Attribute, f func(nfwatch.Message)) error {
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ask, err := request(kind, netlink.Dump, family, filter...)
	if err != nil {
		return err
	}
	if _, err := conn.Send(ask); err != nil {
		return err
	}
	for raw, err := range conn.ReceiveIter() {
		if err != nil {
			return err
		}
		if m, ok := nfwatch.ParseMessage(raw); ok {
			f(m)
		}
	}
	return nil
}

// dial opens a socket, in the network namespace of the calling thread, that waits no longer than ctx.
func dial(ctx context.Context) (*netlink.Conn, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

func request(kind uint16, flags netlink.HeaderFlags, family proxy.Family, attrs ...netlink.Attribute) (netlink.Message, error) {
	data, err := netlink.MarshalAttributes(attrs)
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | flags,
		},
		Data: append([]byte{nfFamily(family), unix.NFNETLINK_V0, 0, 0}, data...),
	}, err
}

// batchEdge begins or ends what is committed together.
func batchEdge(kind netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
	}
}

func textAttr(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(value), 0)}
}
