package preflight

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/proxy"
)

// toolTime is how long a program that lists rules may take.
const toolTime = 30 * time.Second

// Gather looks at this node. What cannot be read is left out.
func Gather(ctx context.Context, candidates []proxy.Mode, missing func(ctx context.Context, m proxy.Mode, f proxy.Family) error) Facts {
	f := Facts{Sysctls: map[string]string{}}
	for _, m := range candidates {
		mode := Mode{Name: m.Name(), Missing: map[proxy.Family]error{}}
		for _, family := range proxy.Families {
			mode.Missing[family] = missing(ctx, m, family)
		}
		f.Modes = append(f.Modes, mode)
	}
	for _, backend := range []string{"nft", "legacy"} {
		for _, family := range proxy.Families {
			program := map[proxy.Family]string{proxy.IPv4: "iptables-", proxy.IPv6: "ip6tables-"}[family] + backend + "-save"
			if text := run(ctx, program); text != "" {
				f.Rules = append(f.Rules, Rules{backend, family, text})
			}
		}
	}
	f.Nft = run(ctx, "nft", "--terse", "list", "ruleset")
	f.Interfaces = interfaces()
	f.Routing = markRules()
	for _, s := range sysctlsWanted {
		if text, err := os.ReadFile(filepath.Join("/proc/sys", s.path)); err == nil {
			f.Sysctls[s.path] = strings.TrimSpace(string(text))
		}
	}
	f.Tracked, f.TrackedMax = number("net/netfilter/nf_conntrack_count"), number("net/netfilter/nf_conntrack_max")
	f.Listeners = listening("/proc")
	return f
}

// run is what a program says, or nothing if it is not there or fails.
func run(ctx context.Context, program string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return ""
	}
	return string(out)
}

func interfaces() []string {
	var names []string
	list, _ := net.Interfaces()
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

func markRules() []MarkRule {
	var rules []MarkRule
	list, _ := netlink.RuleList(netlink.FAMILY_ALL)
	for _, r := range list {
		// Sluice's own say that the kernel made them, so that systemd-networkd leaves them alone. The kernel makes none with a mark.
		if r.Mark == 0 && r.Mask == nil || r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		mask := ^uint32(0)
		if r.Mask != nil {
			mask = *r.Mask
		}
		rules = append(rules, MarkRule{r.Priority, r.Mark, mask})
	}
	return rules
}

func number(path string) int {
	text, err := os.ReadFile(filepath.Join("/proc/sys", path))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}
