package preflight

import (
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// socketFile is a list of sockets in /proc/net.
type socketFile struct {
	name     string
	protocol proxy.Protocol
	state    string // of those that take what comes
}

var socketFiles = []socketFile{{"tcp", proxy.TCP, "0A"}, {"tcp6", proxy.TCP, "0A"}, {"udp", proxy.UDP, "07"}, {"udp6", proxy.UDP, "07"}}

// listening lists the sockets of this network namespace that wait for somebody, with their owners.
func listening(proc string) []Listener {
	var all []Listener
	var inodes []string
	for _, file := range socketFiles {
		text, err := os.ReadFile(filepath.Join(proc, "thread-self", "net", file.name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if l, inode, ok := socket(file, line); ok {
				all, inodes = append(all, l), append(inodes, inode)
			}
		}
	}
	owners := processes(proc, inodes)
	for i := range all {
		all[i].Process = owners[inodes[i]]
	}
	return all
}

// socket reads a line such as "0: 0100007F:2809 00000000:0000 0A … 0 12345 …".
func socket(file socketFile, line string) (l Listener, inode string, ok bool) {
	words := strings.Fields(line)
	if len(words) < 10 || words[3] != file.state {
		return Listener{}, "", false
	}
	address, port, _ := strings.Cut(words[1], ":")
	addr, ok := kernelAddr(address)
	number, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return Listener{}, "", false
	}
	l = Listener{Protocol: file.protocol, Port: uint16(number), Loopback: addr.IsLoopback()}
	if !addr.IsUnspecified() {
		l.Addr = addr.String()
	}
	return l, words[9], true
}

// kernelAddr reads an address as the kernel prints it: in words of 32 bits, each in the order of the machine's bytes.
func kernelAddr(text string) (netip.Addr, bool) {
	bytes, err := hex.DecodeString(text)
	if err != nil || len(bytes)%4 != 0 {
		return netip.Addr{}, false
	}
	for word := range slices.Chunk(bytes, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(bytes)
	return addr.Unmap(), ok
}

// processes finds who has the sockets with those inodes, as far as this process may look.
func processes(proc string, inodes []string) map[string]string {
	owners := map[string]string{}
	links, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	for _, link := range links {
		target, err := os.Readlink(link)
		inode, is := strings.CutPrefix(target, "socket:[")
		if inode = strings.TrimSuffix(inode, "]"); err != nil || !is || owners[inode] != "" || !slices.Contains(inodes, inode) {
			continue
		}
		name, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(link)), "comm"))
		if err == nil {
			owners[inode] = strings.TrimSpace(string(name))
		}
	}
	return owners
}
