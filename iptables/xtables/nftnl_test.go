package xtables

import (
	"encoding/binary"
	"os"
	"os/exec"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

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
		{"our table", nftMessage(t, unix.NFT_MSG_DELTABLE, unix.NFPROTO_IPV4, text(unix.NFTA_TABLE_NAME, "nat")), "deleted table nat"},
		{"other's table", nftMessage(t, unix.NFT_MSG_DELTABLE, unix.NFPROTO_IPV4, text(unix.NFTA_TABLE_NAME, "sluice")), ""},
	}
	p := part{family: proxy.IPv4, tables: []string{"nat"}, prefix: "SLUICE-"}
	for _, test := range tests {
		m, ok := parseMessage(test.message)
		if !ok {
			t.Fatalf("%s: not parsed", test.name)
		}
		if got := p.touched(m); got != test.want {
			t.Errorf("%s: %q instead of %q", test.name, got, test.want)
		}
	}
}

func TestChildrenKnowTheirCommits(t *testing.T) {
	var c children
	for range remembered + 1 {
		cmd := exec.Command("true")
		if err := c.start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.pids) != remembered {
		t.Fatalf("%d children are remembered", len(c.pids))
	}
	ours := c.pids[0]
	tests := []struct {
		name string
		g    generation
		want bool
	}{
		{"process number", generation{pid: ours, process: "iptables-nft-re"}, true},
		{"port number, in a pid namespace", generation{port: ours, pid: ours + 100000, process: "iptables-nft-re"}, true},
		{"old kernel that names nobody", generation{port: ours}, true},
		{"stranger", generation{port: 1, pid: 1, process: "iptables-nft-re"}, false},
		{"number of ours in another namespace", generation{port: ours, pid: 1, process: "iptables"}, false},
		{"nft", generation{port: ours, pid: 1, process: "nft"}, false},
	}
	for _, test := range tests {
		if got := c.made(test.g); got != test.want {
			t.Errorf("%s: %v", test.name, got)
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

func TestGenerationsWrapAround(t *testing.T) {
	if !(generation{id: 1}).after(1<<32-1) || (generation{id: 1<<32 - 1}).after(1) || (generation{id: 7}).after(7) {
		t.Error("wrong order")
	}
}

func TestFilterPassesOnlyEndsOfCommits(t *testing.T) {
	raw, err := onlyGenerations()
	if err != nil {
		t.Fatal(err)
	}
	filter, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("filter is not understood")
	}
	vm, err := bpf.NewVM(filter)
	if err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[uint16]bool{unix.NFT_MSG_NEWGEN: true, unix.NFT_MSG_NEWRULE: false, unix.NFT_MSG_DELTABLE: false} {
		m := nftMessage(t, kind, 0, number32(unix.NFTA_GEN_ID, 1))
		m.Header.Length = uint32(unix.SizeofNlMsghdr + len(m.Data))
		packet, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := vm.Run(packet); err != nil || (n > 0) != want {
			t.Errorf("message %d: %d bytes pass, error %v", kind, n, err)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	end := nftMessage(f, unix.NFT_MSG_NEWGEN, 0, number32(unix.NFTA_GEN_ID, 7), number32(unix.NFTA_GEN_PROC_PID, 9), text(unix.NFTA_GEN_PROC_NAME, "nft"))
	rule := nftMessage(f, unix.NFT_MSG_DELRULE, unix.NFPROTO_IPV4, text(unix.NFTA_RULE_TABLE, "nat"), text(unix.NFTA_RULE_CHAIN, "SLUICE-A"))
	for _, m := range []netlink.Message{end, rule} {
		f.Add(uint16(m.Header.Type), m.Data)
		f.Add(uint16(m.Header.Type), m.Data[:len(m.Data)-1])
	}
	f.Add(uint16(newGeneration), []byte(nil))
	p := part{family: proxy.IPv4, tables: []string{"nat"}, prefix: "SLUICE-"}
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		m, ok := parseMessage(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind)}, Data: data})
		if !ok {
			return
		}
		if p.touched(m) != "" && m.family != unix.NFPROTO_IPV4 {
			t.Error("another family touched ours")
		}
		_ = m.generation(1).String()
	})
}
