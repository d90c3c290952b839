package nft

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// dynset is a rule by which a packet changes an element of a map from number and client to number:
//
//	update @MAP { meta priority & MASK . ct original ip6 saddr timeout 10s : meta priority }
//	delete @MAP { meta priority & MASK . ip6 saddr : meta priority }
//
// For a key of more than 16 bytes, nft 1.0.6 has the data overwrite the end of the key (or aborts, depending on
// the order of the fields). It lists such a rule correctly, so in IPv6 we hand these rules to the kernel ourselves.
type dynset struct {
	chain, set, comment string
	update              bool
	original            bool // the client is that of the connection, not of the packet
	mask                uint32
	timeout             time.Duration // 0 is none
}

var dynsetRule = regexp.MustCompile(`(?m)^add rule ip6 \S+ (\S+) (update|delete) @(\S+) ` +
	`\{ meta priority & 0x([0-9a-f]+) \. (ct original )?ip6 saddr(?: timeout (\d+)s)? : meta priority \}(?: comment "([^"]*)")?\n`)

// cutDynsets takes the rules that nft would spoil out of a transaction.
func cutDynsets(f proxy.Family, input string) (string, []dynset) {
	if f != proxy.IPv6 || !strings.Contains(input, " { meta priority & ") {
		return input, nil
	}
	var rules []dynset
	for _, m := range dynsetRule.FindAllStringSubmatch(input, -1) {
		mask, _ := strconv.ParseUint(m[4], 16, 32)
		seconds, _ := strconv.ParseInt(m[6], 10, 64)
		rules = append(rules, dynset{
			chain:    m[1],
			update:   m[2] == "update",
			set:      m[3],
			mask:     uint32(mask),
			original: m[5] != "",
			timeout:  time.Duration(seconds) * time.Second,
			comment:  m[7],
		})
	}
	return dynsetRule.ReplaceAllString(input, ""), rules
}

// appendDynsets puts each rule at the end of its chain, all of them in one transaction.
func (r *Runner) appendDynsets(rules []dynset) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	r.children.StartSocket(c.PID())
	messages := make([]netlink.Message, len(rules))
	for i, rule := range rules {
		messages[i] = rule.message(r.table)
	}
	refused, err := commit(c, messages)
	if err != nil && refused < len(rules) {
		return fmt.Errorf("add rule to chain %s: %w", rules[refused].chain, err)
	}
	return err
}

// commit has the kernel take all of what messages say, or nothing. After an error, refused is the message that is to blame, or how many
// there are if it is none.
func commit(c *netlink.Conn, messages []netlink.Message) (refused int, err error) {
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return len(messages), err
	}
	batch := append([]netlink.Message{batchEdge(unix.NFNL_MSG_BATCH_BEGIN)}, messages...)
	if _, err := c.SendMessages(append(batch, batchEdge(unix.NFNL_MSG_BATCH_END))); err != nil {
		return len(messages), err
	}
	for i := range messages { // the edges are not answered
		if _, err := c.Receive(); err != nil {
			return i, err
		}
	}
	return 0, nil
}

// batchEdge begins or ends what is committed together.
func batchEdge(kind netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
	}
}

// Registers: the key takes five of 32 bits, from the first on; the data comes well after.
const (
	keyRegister    = unix.NFT_REG_1
	clientRegister = unix.NFT_REG32_01
	dataRegister   = unix.NFT_REG_3
)

// Of linux/netfilter/nf_tables.h, and not in package unix.
const (
	dynsetDelete   = 2 // NFT_DYNSET_OP_DELETE
	sourceAt       = 8 // of an IPv6 header
	directionOfAll = 0 // IP_CT_DIR_ORIGINAL
)

func (d dynset) message(table string) netlink.Message {
	client := expression("payload",
		be32(unix.NFTA_PAYLOAD_DREG, clientRegister), be32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_NETWORK_HEADER),
		be32(unix.NFTA_PAYLOAD_OFFSET, sourceAt), be32(unix.NFTA_PAYLOAD_LEN, net6))
	if d.original {
		// NFT_CT_SRC means the same to the kernel, but nft aborts when it lists that.
		client = expression("ct",
			be32(unix.NFTA_CT_DREG, clientRegister), be32(unix.NFTA_CT_KEY, unix.NFT_CT_SRC_IP6),
			netlink.Attribute{Type: unix.NFTA_CT_DIRECTION, Data: []byte{directionOfAll}})
	}
	change := []netlink.Attribute{
		text(unix.NFTA_DYNSET_SET_NAME, d.set), be32(unix.NFTA_DYNSET_OP, d.op()),
		be32(unix.NFTA_DYNSET_SREG_KEY, keyRegister), be32(unix.NFTA_DYNSET_SREG_DATA, dataRegister),
	}
	if d.timeout > 0 {
		change = append(change, netlink.Attribute{
			Type: unix.NFTA_DYNSET_TIMEOUT, Data: binary.BigEndian.AppendUint64(nil, uint64(d.timeout.Milliseconds())),
		})
	}
	priority := func(register uint32) netlink.Attribute {
		return expression("meta", be32(unix.NFTA_META_DREG, register), be32(unix.NFTA_META_KEY, unix.NFT_META_PRIORITY))
	}
	masked := expression("bitwise",
		be32(unix.NFTA_BITWISE_SREG, keyRegister), be32(unix.NFTA_BITWISE_DREG, keyRegister), be32(unix.NFTA_BITWISE_LEN, 4),
		nest(unix.NFTA_BITWISE_MASK, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: binary.NativeEndian.AppendUint32(nil, d.mask)}),
		nest(unix.NFTA_BITWISE_XOR, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: make([]byte, 4)}))
	attrs := []netlink.Attribute{
		text(unix.NFTA_RULE_TABLE, table), text(unix.NFTA_RULE_CHAIN, d.chain),
		nest(unix.NFTA_RULE_EXPRESSIONS, priority(keyRegister), masked, client, priority(dataRegister), expression("dynset", change...)),
	}
	if d.comment != "" {
		userData := append([]byte{0, byte(len(d.comment) + 1)}, d.comment+"\x00"...)
		attrs = append(attrs, netlink.Attribute{Type: unix.NFTA_RULE_USERDATA, Data: userData})
	}
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE),
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append,
		},
		Data: append(nfgenmsg(proxy.IPv6), marshal(attrs...)...),
	}
}

func (d dynset) op() uint32 {
	if d.update {
		return unix.NFT_DYNSET_OP_UPDATE
	}
	return dynsetDelete
}

const net6 = 16 // bytes of an address

func expression(name string, data ...netlink.Attribute) netlink.Attribute {
	return nest(unix.NFTA_LIST_ELEM, text(unix.NFTA_EXPR_NAME, name), nest(unix.NFTA_EXPR_DATA, data...))
}

func nest(kind uint16, attrs ...netlink.Attribute) netlink.Attribute {
	return netlink.Attribute{Type: kind | netlink.Nested, Data: marshal(attrs...)}
}

// marshal fails for attributes of more than 64 KiB, and there are none.
func marshal(attrs ...netlink.Attribute) []byte {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		panic(err)
	}
	return data
}

func be32(kind uint16, value uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint32(nil, value)}
}
