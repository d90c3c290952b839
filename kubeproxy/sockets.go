package kubeproxy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// socketLists are the kernel's lists of sockets, below its folder for a network namespace.
var socketLists = []string{"tcp", "tcp6", "udp", "udp6"}

// unconnected are the states, as the lists have them, of sockets without a connection: TIME_WAIT, CLOSE, LISTEN.
var unconnected = map[string]bool{"06": true, "07": true, "0A": true}

// socketsAt counts the node's own connections that come from some addresses, by the lists in a folder.
func socketsAt(folder string, addrs map[netip.Addr]bool) (n uint32, err error) {
	if len(addrs) == 0 {
		return 0, nil
	}
	for _, list := range socketLists {
		file, err := os.Open(filepath.Join(folder, list))
		if errors.Is(err, fs.ErrNotExist) {
			continue // there is no IPv6
		}
		if err != nil {
			return 0, fmt.Errorf("list sockets: %w", err)
		}
		found, err := countSockets(file, addrs)
		_ = file.Close()
		if err != nil {
			return 0, fmt.Errorf("list sockets: %w", err)
		}
		n += found
	}
	return n, nil
}

func countSockets(list io.Reader, addrs map[netip.Addr]bool) (n uint32, err error) {
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 4 || unconnected[words[3]] {
			continue
		}
		local, _, _ := strings.Cut(words[1], ":")
		if addr, ok := socketAddr(local); ok && addrs[addr] {
			n++
		}
	}
	return n, lines.Err()
}

// socketAddr reads an address as the lists have it: words of 32 bits in the order of the machine's bytes.
func socketAddr(text string) (netip.Addr, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, false
	}
	for word := b; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	return addr.Unmap(), ok
}
