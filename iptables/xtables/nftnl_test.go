package xtables

import (
	"encoding/binary"
	"os"
	"os/exec"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
	"github.com/sluice-proxy/sluice/proxy"
)

// nftMessage encodes a message as the kernel does.
func nftMessage(t testing.TB, kind uint16, family uint8, attrs ...netlink.Attribute) netlink.Message {
	t.Helper()
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		t.Fatal(err)
	}
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)},
		Data:   append([]byte{family, 0, 0, 0}, data...),
	}
}

func text(kind uint16, value string) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: append([]byte(value), 0)}
}

func number32(kind uint16, value uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint32(nil, value)}
}

func TestTouched(t *testing.T) {
	const table, chain = unix.NFTA_RULE_TABLE, unix.NFTA_RULE_CHAIN
	jump := netlink.Attribute{Type: unix.NFTA_RULE_EXPRESSIONS | netlink.Nested, Data: []byte("immediate SLUICE-SERVICES\x00")}
	tests := []struct {
		name    string
		message netlink.Message
		want    string
	}{
		{"our rule", nftMessage(t, unix.NFT_MSG_DELRULE, unix.NFPROTO_IPV4, text(table, "nat"), text(chain, "SLUICE-A")), "deleted a rule in chain SLUICE-A of table nat"},
		{"our rule, written", nftMessage(t, unix.NFT_MSG_NEWRULE, unix.NFPROTO_IPV4, text(table, "nat"), text(chain, "SLUICE-A")), "wrote a rule in chain SLUICE-A of table nat"},
		{"our jump", nftMessage(t, unix.NFT_MSG_DELRULE, unix.NFPROTO_IPV4, text(table, "nat"), text(chain, "OUTPUT"), jump), "deleted a jump to ours in chain OUTPUT of table nat"},
		{"one more jump to ours", nftMessage(t, unix.NFT_MSG_NEWRULE, unix.NFPROTO_IPV4, text(table, "nat"), text(chain, "OUTPUT"), jump), ""},
		{"other's rule", nftMessage(t, unix.NFT_MSG_DELRULE, unix.NFPROTO_IPV4, text(table, "nat"), text(chain, "OUTPUT")), ""},
		{"other family", nftMessage(t, unix.NFT_MSG_DELRULE, unix.NFPROTO_IPV6, text(table, "nat"), text(chain, "SLUICE-A")), ""},
		{"other table", nftMessage(t, unix.NFT_MSG_DELRULE, unix.NFPROTO_IPV4, text(table, "raw"), text(chain, "SLUICE-A")), ""},
		{"our chain", nftMessage(t, unix.NFT_MSG_DELCHAIN, unix.NFPROTO_IPV4, text(unix.NFTA_CHAIN_TABLE, "nat"), text(unix.NFTA_CHAIN_NAME, "SLUICE-A")), "deleted chain SLUICE-A of table nat"},
		{"other's chain", nftMessage(t, unix.NFT_MSG_DELCHAIN, unix.NFPROTO_IPV4, text(unix.NFTA_CHAIN_TABLE, "nat"), text(unix.NFTA_CHAIN_NAME, "KUBE-A")), ""},
		{"shared chain", nftMessage(t, unix.NFT_MSG_DELCHAIN, unix.NFPROTO_IPV4, text(unix.NFTA_CHAIN_TABLE, "nat"), text(unix.NFTA_CHAIN_NAME, "KUBE-MARK-MASQ")), "deleted chain KUBE-MARK-MASQ of table nat"},
		{"shared chain, written", nftMessage(t, unix.NFT_MSG_NEWCHAIN, unix.NFPROTO_IPV4, text(unix.NFTA_CHAIN_TABLE, "nat"), text(unix.NFTA_CHAIN_NAME, "KUBE-MARK-MASQ")), ""},
		{"our table", nftMessage(t, unix.NFT_MSG_DELTABLE, unix.NFPROTO_IPV4, text(unix.NFTA_TABLE_NAME, "nat")), "deleted table nat"},
		{"other's table", nftMessage(t, unix.NFT_MSG_DELTABLE, unix.NFPROTO_IPV4, text(unix.NFTA_TABLE_NAME, "sluice")), ""},
	}
	p := part{family: proxy.IPv4, tables: []string{"nat"}, prefix: "SLUICE-"}
	for _, test := range tests {
		m, ok := nfwatch.ParseMessage(test.message)
		if !ok {
			t.Fatalf("%s: not parsed", test.name)
		}
		if got := p.touched(m); got != test.want {
			t.Errorf("%s: %q instead of %q", test.name, got, test.want)
		}
	}
}

// In a container, our process numbers are not those that the kernel tells.
func TestWatchKnowsItselfInAPidNamespace(t *testing.T) {
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", os.Args[0],
		"-test.run=^TestWatchDoesNotMindOurselvesNorOthersInTheirOwnChains$")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

func FuzzParseMessage(f *testing.F) {
	end := nftMessage(f, unix.NFT_MSG_NEWGEN, 0, number32(unix.NFTA_GEN_ID, 7), number32(unix.NFTA_GEN_PROC_PID, 9), text(unix.NFTA_GEN_PROC_NAME, "nft"))
	rule := nftMessage(f, unix.NFT_MSG_DELRULE, unix.NFPROTO_IPV4, text(unix.NFTA_RULE_TABLE, "nat"), text(unix.NFTA_RULE_CHAIN, "SLUICE-A"))
	for _, m := range []netlink.Message{end, rule} {
		f.Add(uint16(m.Header.Type), m.Data)
		f.Add(uint16(m.Header.Type), m.Data[:len(m.Data)-1])
	}
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN), []byte(nil))
	p := part{family: proxy.IPv4, tables: []string{"nat"}, prefix: "SLUICE-"}
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		m, ok := nfwatch.ParseMessage(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind)}, Data: data})
		if !ok {
			return
		}
		if p.touched(m) != "" && m.Family != unix.NFPROTO_IPV4 {
			t.Error("another family touched ours")
		}
		_ = m.Generation(1).String()
	})
}
