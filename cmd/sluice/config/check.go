package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	netutils "k8s.io/utils/net"

	"github.com/sluice-proxy/sluice/proxy"
)

// checker collects problems, each with the name of the setting that it is in.
type checker struct {
	file     bool // fields come from a file rather than from flags
	problems []error
}

// add notes what is wrong with a field of KubeProxyConfiguration, under the name that the user gave it.
func (c *checker) add(field, format string, args ...any) {
	if flag := flagOf(field); !c.file && flag != "" {
		c.addFlag(flag, format, args...)
		return
	}
	c.problems = append(c.problems, fmt.Errorf("%s.%s: "+format, append([]any{kind, field}, args...)...))
}

// addFlag notes what is wrong with a flag that counts in any case.
func (c *checker) addFlag(flag, format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf("--%s: "+format, append([]any{flag}, args...)...))
}

// note adds an error, which may have several lines, if there is one.
func (c *checker) note(field string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		c.add(field, "%s", line)
	}
}

// err has a line for each problem, sorted by setting.
func (c *checker) err() error {
	slices.SortStableFunc(c.problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(c.problems...)
}

// name is what the user calls a field.
func (c *checker) name(field string) string {
	if flag := flagOf(field); !c.file && flag != "" {
		return "--" + flag
	}
	return field
}

func atLeastZero[T cmp.Ordered](c *checker, field string, value T) T {
	if value < *new(T) {
		c.add(field, "%v is negative", value)
	}
	return value
}

func positive(c *checker, field string, value time.Duration) time.Duration {
	if value <= 0 {
		c.add(field, "%v is not positive", value)
	}
	return value
}

// markBit is the mark with that bit.
func markBit(c *checker, field string, bit int32) uint32 {
	if bit < 0 || bit > 31 {
		c.add(field, "%d is not between 0 and 31", bit)
		return 0
	}
	return 1 << bit
}

func prefixes(texts []string, wrong func(format string, args ...any)) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		p, ok := parsePrefix(strings.TrimSpace(text))
		if !ok {
			wrong("%q is not a CIDR", text)
			continue
		}
		list = append(list, p)
	}
	return list
}

func serviceNames(texts []string, wrong func(format string, args ...any)) []proxy.ServiceName {
	var names []proxy.ServiceName
	for _, text := range texts {
		namespace, name, ok := strings.Cut(text, "/")
		if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
			wrong("%q is not namespace/name", text)
			continue
		}
		names = append(names, proxy.ServiceName{Namespace: namespace, Name: name})
	}
	return names
}

// parseAddr is as lenient as kube-proxy, which takes 010.0.0.1 for 10.0.0.1.
func parseAddr(text string) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(text))
	return addr.Unmap(), ok
}

// parsePrefix is as lenient.
func parsePrefix(text string) (netip.Prefix, bool) {
	_, network, err := netutils.ParseCIDRSloppy(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(network.IP)
	bits, _ := network.Mask.Size()
	return netip.PrefixFrom(addr, bits), ok
}
