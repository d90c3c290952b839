package kubeproxy

import (
	"regexp"
	"strings"

	"github.com/sluice-proxy/sluice/iptables/xtables"
)

// tables are those in which kube-proxy has chains.
var tables = []string{"nat", "filter", "mangle"}

// chains are those that kube-proxy has once, in modes iptables and ipvs, by table. KUBE-IPTABLES-HINT, KUBE-KUBELET-CANARY and
// KUBE-MARK-DROP are kubelet's.
var chains = map[string][]string{
	"nat": {
		"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-PROXY-CANARY", // mode iptables
		"KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", // mode ipvs
	},
	"filter": {
		"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL", "KUBE-PROXY-CANARY",
		"KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
	},
	"mangle": {"KUBE-PROXY-CANARY"},
}

// hashed are the chains of Services and endpoints: XLB is that of versions before 1.24. A network policy's chain has a longer
// name or another prefix.
var hashed = regexp.MustCompile(`^KUBE-(SVC|SVL|SEP|FW|EXT|XLB)-[A-Z2-7]{16}$`)

// firewall is a chain of table filter that both kubelet and kube-proxy make, with the same rule, in IPv4. In IPv6 it is kube-proxy's,
// and without rules.
const firewall = "KUBE-FIREWALL"

// oldKubelet is made by kubelets before 1.28, which then have the chain for marking as well.
const oldKubelet = "KUBE-MARK-DROP"

// theirs tells which chains of a table are kube-proxy's alone.
func theirs(table string, s xtables.Survey) func(chain string) bool {
	once := map[string]bool{}
	for _, name := range chains[table] {
		once[name] = true
	}
	own := func(chain string) bool { return once[chain] || table == "nat" && hashed.MatchString(chain) }
	once[xtables.SharedChain] = table == "nat" && markIsTheirs(s, own)
	once[firewall] = table == "filter" && s.Chains[firewall] == 0
	return own
}

// markIsTheirs tells whether nobody but kube-proxy has a use for the chain for marking. Sluice in mode iptables takes care that
// it is there, for others.
func markIsTheirs(s xtables.Survey, theirs func(chain string) bool) bool {
	for name := range s.Chains {
		if name == oldKubelet || strings.HasPrefix(name, xtables.DefaultPrefix) {
			return false
		}
	}
	for _, l := range s.Leads {
		if l.Target == xtables.SharedChain && !theirs(l.Chain) {
			return false
		}
	}
	return true
}

// sets are the ipsets of mode ipvs, in IPv4. In IPv6 their names begin with KUBE-6-.
var sets = []string{
	"KUBE-LOOP-BACK", "KUBE-CLUSTER-IP", "KUBE-EXTERNAL-IP", "KUBE-EXTERNAL-IP-LOCAL", "KUBE-LOAD-BALANCER", "KUBE-LOAD-BALANCER-FW",
	"KUBE-LOAD-BALANCER-LOCAL", "KUBE-LOAD-BALANCER-SOURCE-IP", "KUBE-LOAD-BALANCER-SOURCE-CIDR", "KUBE-NODE-PORT-TCP",
	"KUBE-NODE-PORT-LOCAL-TCP", "KUBE-NODE-PORT-UDP", "KUBE-NODE-PORT-LOCAL-UDP", "KUBE-NODE-PORT-SCTP-HASH",
	"KUBE-NODE-PORT-LOCAL-SCTP-HASH", "KUBE-HEALTH-CHECK-NODE-PORT", "KUBE-IPVS-IPS",
}
