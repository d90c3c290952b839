package preflight

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// proxies finds other service proxies, or what they have left.
func proxies(f Facts, w Want) []Finding {
	const remedy = `follow "From kube-proxy to Sluice and back" in docs/operate.md`
	var all []Finding
	for _, r := range f.Rules {
		if n := jumps(r.Text, "KUBE-SVC-") + jumps(r.Text, "KUBE-SERVICES"); n > 0 {
			text := fmt.Sprintf("kube-proxy's rules are in iptables (backend %s, %v): Sluice's come before them, but those of deleted Services go on serving", r.Backend, r.Family)
			all = append(all, Finding{Warning, "other proxies", text, remedy})
		}
		if strings.Contains(r.Text, "\n:KUBE-ROUTER-") && strings.Contains(r.Text, "\n:KUBE-ROUTER-SERVICES") {
			all = append(all, Finding{Warning, "other proxies", fmt.Sprintf("kube-router's service proxy has rules (backend %s, %v)", r.Backend, r.Family), "run kube-router with --run-service-proxy=false"})
		}
	}
	for _, family := range []string{"ip", "ip6"} {
		if strings.Contains(f.Nft, "table "+family+" kube-proxy {") {
			all = append(all, Finding{Warning, "other proxies", fmt.Sprintf("kube-proxy's table is in nftables (%s)", family), remedy})
		}
	}
	if slices.Contains(f.Interfaces, "kube-ipvs0") && w.Mode != "ipvs" {
		all = append(all, Finding{Warning, "other proxies", "the device kube-ipvs0 of kube-proxy's ipvs mode is there: its addresses are this node's own, and what is sent to them never leaves it", remedy})
	}
	if slices.Contains(f.Interfaces, "cilium_host") {
		all = append(all, Finding{Warning, "other proxies", "Cilium is here, and may serve Services itself", "see that its kubeProxyReplacement is off"})
	}
	return all
}

// jumps counts the rules that lead to a chain whose name begins so.
func jumps(text, prefix string) int { return strings.Count(text, " -j "+prefix) }

// backends finds rules in both backends of iptables: whoever reads one does not see the other, and both apply.
func backends(f Facts, _ Want) []Finding {
	used := map[string]bool{}
	for _, r := range f.Rules {
		if strings.Contains(r.Text, "\n-A ") {
			used[r.Backend] = true
		}
	}
	if len(used) < 2 {
		return nil
	}
	return []Finding{{
		Warning, "iptables", "there are rules in both backends, legacy and nft: each program sees those of its own alone, and packets pass both",
		"let kubelet, the network plugin and Sluice (--iptables-backend) use one, and remove what is left in the other",
	}}
}

// engine is a program that enforces network policies.
type engine struct{ name, chain string }

var policyEngines = []engine{{"Calico", "cali-"}, {"kube-router", "KUBE-ROUTER-"}, {"Weave Net", "WEAVE-NPC"}}

// engines finds those that filter in FORWARD alone, which the packets of mode ipvs do not pass.
func engines(f Facts, w Want) []Finding {
	if w.Mode != "ipvs" {
		return nil
	}
	var all []Finding
	for _, r := range f.Rules {
		for _, e := range policyEngines {
			jump := func(chain string) bool {
				return regexp.MustCompile(`(?m)^-A ` + chain + ` .*-j ` + regexp.QuoteMeta(e.chain)).MatchString(r.Text)
			}
			if jump("FORWARD") && !jump("INPUT") {
				all = append(all, Finding{
					Warning, "policy engines", fmt.Sprintf("%s filters in FORWARD alone (backend %s, %v); traffic of mode ipvs passes INPUT and OUTPUT, so its policies do not see it", e.name, r.Backend, r.Family),
					"choose another mode",
				})
			}
		}
	}
	return all
}

var (
	// iptables-save prints marks as VALUE/MASK in hexadecimal digits, or as VALUE alone, which means all bits.
	savedMark = regexp.MustCompile(`(?m)^-A (\S+) .*?(?:--mark|--set-xmark|--set-mark|--or-mark|--nfmask) 0x([0-9a-f]+)(?:/0x([0-9a-f]+))?`)

	// nft prints what it does to a mark as "meta mark set …" and what it asks of it as "meta mark & MASK".
	nftMark = regexp.MustCompile(`meta mark(?: set (?:meta )?(?:ct )?mark)? (?:[|&]|and|or) 0x([0-9a-f]+)`)

	// All bits are set by "meta mark set VALUE" and compared by "meta mark VALUE".
	nftWholeMark = regexp.MustCompile(`meta mark(?: set| [!=]=)? 0x([0-9a-f]+)`)
)

// bit is one of packet marks that Sluice uses.
type bit struct {
	mask      uint32
	use, flag string
}

// marks finds other users of Sluice's bits.
func marks(f Facts, w Want) []Finding {
	bits := []bit{{w.MasqueradeMark, "with which Sluice asks for masquerading", "--iptables-masquerade-bit"}}
	if w.Mode == "ipvs" {
		bits = append(bits, bit{w.RouteMark, "with which mode ipvs leads packets to its virtual servers", "--ipvs-route-bit"})
	}
	var all []Finding
	for _, b := range bits {
		if users := b.users(f); len(users) > 0 {
			text := fmt.Sprintf("others use the bit %#x of packet marks, %s: %s", b.mask, b.use, strings.Join(sortedKeys(users), ", "))
			all = append(all, Finding{Warning, "marks", text, "choose another " + b.flag})
		}
	}
	return all
}

// users are the rules of others that set the bit or look at it.
func (b bit) users(f Facts) map[string]bool {
	users := map[string]bool{}
	for _, r := range f.Rules {
		for _, m := range savedMark.FindAllStringSubmatch(r.Text, -1) {
			chain, value, mask := m[1], parse(m[2]), parse(or(m[3], m[2]))
			if b.isIn(value, mask) && !strings.HasPrefix(chain, "KUBE-") && !strings.HasPrefix(chain, "SLUICE-") {
				users["iptables chain "+chain] = true
			}
		}
	}
	for _, m := range nftMark.FindAllStringSubmatch(foreignTables(f.Nft), -1) {
		// A mask of nearly all bits keeps the others as they are.
		if mask := parse(m[1]); mask&b.mask != 0 && mask>>16 != 0xffff {
			users["nftables: "+m[0]] = true
		}
	}
	for _, m := range nftWholeMark.FindAllStringSubmatch(foreignTables(f.Nft), -1) {
		if parse(m[1])&b.mask != 0 {
			users["nftables: "+m[0]] = true
		}
	}
	for _, r := range f.Routing {
		if b.isIn(r.Mark, r.Mask) {
			users[fmt.Sprintf("ip rule %d (fwmark %#x/%#x)", r.Priority, r.Mark, r.Mask)] = true
		}
	}
	return users
}

// isIn tells whether a value with a mask is in the bit's way. Where all bits of a mark are set or compared, those that are 1 are: who
// does so takes the whole mark for his own, as WireGuard's tools do.
func (b bit) isIn(value, mask uint32) bool {
	if mask == ^uint32(0) {
		return value&b.mask != 0
	}
	return mask&b.mask != 0
}

func parse(hex string) uint32 {
	n, _ := strconv.ParseUint(hex, 16, 32) // digits, by the pattern
	return uint32(n)
}

func sortedKeys(set map[string]bool) []string {
	var keys []string
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// foreignTables leaves out the tables of iptables-nft, which its own programs show, and those of service proxies.
func foreignTables(nft string) string {
	var b strings.Builder
	skip := false
	for line := range strings.Lines(nft) {
		if words := strings.Fields(line); len(words) >= 3 && words[0] == "table" {
			name := words[2]
			skip = slices.Contains([]string{"filter", "nat", "mangle", "raw", "security", "kube-proxy"}, name) || strings.HasPrefix(name, "sluice")
		}
		if !skip {
			b.WriteString(line)
		}
	}
	return b.String()
}
