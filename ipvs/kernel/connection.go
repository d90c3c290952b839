package kernel

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// Connection is what IPVS knows of a connection, or, if Client has port 0, that a client is remembered by session affinity.
type Connection struct {
	Protocol                 proxy.Protocol
	Client, Virtual, Backend netip.AddrPort
	State                    string // in the words of ipvsadm
	Left                     time.Duration
}

// connectionsFile is of the network namespace of the thread that opens it.
const connectionsFile = "/proc/thread-self/net/ip_vs_conn"

// Connections reads what IPVS knows, while it changes; none if the kernel has no IPVS. To reach the end costs as much as there are
// connections: stop when enough is known.
func Connections() iter.Seq2[Connection, error] {
	return func(yield func(Connection, error) bool) {
		f, err := os.Open(connectionsFile)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(Connection{}, err)
			return
		}
		defer func() { _ = f.Close() }()
		parseConnections(f, yield)
	}
}

func parseConnections(r io.Reader, yield func(Connection, error) bool) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 9 || fields[0] == "Pro" {
			continue
		}
		c, err := parseConnection(fields)
		if !yield(c, err) {
			return
		}
	}
	if err := lines.Err(); err != nil {
		yield(Connection{}, err)
	}
}

func parseConnection(fields []string) (c Connection, err error) {
	for _, p := range []proxy.Protocol{proxy.TCP, proxy.UDP, proxy.SCTP} {
		if strings.EqualFold(fields[0], p.String()) {
			c.Protocol = p
		}
	}
	var errs [4]error
	c.Client, errs[0] = parseEnd(fields[1], fields[2])
	c.Virtual, errs[1] = parseEnd(fields[3], fields[4])
	c.Backend, errs[2] = parseEnd(fields[5], fields[6])
	c.State = fields[7]
	seconds, err := strconv.Atoi(fields[8])
	c.Left, errs[3] = time.Duration(seconds)*time.Second, err
	return c, errors.Join(errs[:]...)
}

// parseEnd reads an address as the kernel writes it, in hexadecimal digits if it is of IPv4, and a port.
func parseEnd(address, port string) (netip.AddrPort, error) {
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q: %w", port, err)
	}
	if strings.Contains(address, ":") {
		addr, err := netip.ParseAddr(strings.Trim(address, "[]"))
		return netip.AddrPortFrom(addr, uint16(number)), err
	}
	raw, err := hex.DecodeString(address)
	if err != nil || len(raw) != 4 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", address)
	}
	addr := netip.AddrFrom4([4]byte(raw))
	return netip.AddrPortFrom(addr, uint16(number)), nil
}
