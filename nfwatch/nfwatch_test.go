package nfwatch

import (
	"encoding/binary"
	"os/exec"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
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

func number32(kind uint16, value uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint32(nil, value)}
}

func TestChildrenKnowTheirCommits(t *testing.T) {
	c := Children{Program: func(name string) bool { return strings.Contains(name, "tables-") }}
	for range remembered + 1 {
		cmd := exec.Command("true")
		if err := c.Start(cmd); err != nil {
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
		g    Generation
		want bool
	}{
		{"process number", Generation{PID: ours, Process: "iptables-nft-re"}, true},
		{"port number, in a pid namespace", Generation{Port: ours, PID: ours + 100000, Process: "iptables-nft-re"}, true},
		{"old kernel that names nobody", Generation{Port: ours}, true},
		{"stranger", Generation{Port: 1, PID: 1, Process: "iptables-nft-re"}, false},
		{"number of ours in another namespace", Generation{Port: ours, PID: 1, Process: "iptables"}, false},
		{"nft", Generation{Port: ours, PID: 1, Process: "nft"}, false},
	}
	c.StartSocket(ours + 1)
	tests = append(tests, []struct {
		name string
		g    Generation
		want bool
	}{
		{"our socket", Generation{Port: ours + 1, Process: OwnName()}, true},
		{"our socket's number, another program", Generation{Port: ours + 1, Process: "nft"}, false},
		{"our name, another socket", Generation{Port: 1, Process: OwnName()}, false},
	}...)
	for _, test := range tests {
		if got := c.Made(test.g); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestGenerationsWrapAround(t *testing.T) {
	if !(Generation{ID: 1}).After(1<<32-1) || (Generation{ID: 1<<32 - 1}).After(1) || (Generation{ID: 7}).After(7) {
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
