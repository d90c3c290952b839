package xtables

import (
	"errors"

	"github.com/sluice-proxy/sluice/proxy"
)

func portMatch(protocol string) extension {
	return extension{protocol: protocol, options: map[string]option{"--dport": ports, "--sport": ports}}
}

var addressTypes = listOf("UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST",
	"BLACKHOLE", "UNREACHABLE", "PROHIBIT")

var matches = map[string]extension{
	"tcp":  portMatch("tcp"),
	"udp":  portMatch("udp"),
	"sctp": portMatch("sctp"),
	"comment": {
		options: map[string]option{"--comment": anything},
		require: []string{"--comment"},
	},
	"mark": {
		options: map[string]option{"--mark": masked},
		require: []string{"--mark"},
	},
	"addrtype": {
		options: map[string]option{"--src-type": addressTypes, "--dst-type": addressTypes},
		require: []string{"--src-type", "--dst-type"},
	},
	"conntrack": {
		options: map[string]option{
			"--ctstate":   listOf("INVALID", "NEW", "ESTABLISHED", "RELATED", "UNTRACKED", "SNAT", "DNAT"),
			"--ctorigdst": anything,
		},
		require: []string{"--ctstate"},
	},
	"nfacct": {
		options: map[string]option{"--nfacct-name": objectName},
		require: []string{"--nfacct-name"},
	},
	"statistic": {
		options: map[string]option{
			"--mode": oneOf("random", "nth"), "--probability": fraction,
			"--every": number(1, 1<<31), "--packet": number(0, 1<<31),
		},
		complete: completeStatistic,
	},
	"recent": {
		options: map[string]option{
			"--set": nil, "--rcheck": nil, "--update": nil, "--remove": nil, "--reap": nil, "--rsource": nil, "--rdest": nil,
			"--name": recentName, "--seconds": number(1, 1<<32-1), "--hitcount": number(1, 255), "--mask": anything,
		},
		require:  []string{"--set", "--rcheck", "--update", "--remove"},
		complete: completeRecent,
	},
}

var natSource, natDestination = []string{"POSTROUTING"}, []string{"PREROUTING", "OUTPUT"}

// targets holds the verdicts, too.
var targets = map[string]extension{
	"ACCEPT": {},
	"DROP":   {},
	"RETURN": {},
	"MARK": {
		options: map[string]option{
			"--set-xmark": masked, "--set-mark": masked,
			"--or-mark": number(0, 1<<32-1), "--and-mark": number(0, 1<<32-1), "--xor-mark": number(0, 1<<32-1),
		},
		complete: completeMark,
	},
	"DNAT": {
		table: "nat", hooks: natDestination,
		options: map[string]option{"--to-destination": destination, "--random": nil, "--persistent": nil},
		require: []string{"--to-destination"},
	},
	"MASQUERADE": {
		table: "nat", hooks: natSource,
		options: map[string]option{"--random-fully": nil, "--random": nil},
	},
	"REJECT": {
		table: "filter",
		options: map[string]option{
			"--reject-with": rejectType,
		},
	},
}

func rejectType(at ruleContext, value string) error {
	if at.family == proxy.IPv6 {
		return oneOf("tcp-reset", "icmp6-no-route", "icmp6-adm-prohibited", "icmp6-addr-unreachable",
			"icmp6-port-unreachable")(at, value)
	}
	return oneOf("tcp-reset", "icmp-port-unreachable", "icmp-net-unreachable", "icmp-host-unreachable",
		"icmp-proto-unreachable", "icmp-net-prohibited", "icmp-host-prohibited", "icmp-admin-prohibited")(at, value)
}

// isTarget tells whether no chain may have that name.
func isTarget(name string) bool {
	_, ok := targets[name]
	return ok || name == "QUEUE"
}

func completeStatistic(given map[string]string) error {
	want := "--probability"
	if given["--mode"] == "nth" {
		want = "--every"
	}
	if _, ok := given["--mode"]; !ok {
		return errors.New("--mode must be specified")
	}
	if _, ok := given[want]; !ok {
		return errors.New(want + " must be specified")
	}
	return nil
}

func completeRecent(given map[string]string) error {
	actions := 0
	for _, action := range []string{"--set", "--rcheck", "--update", "--remove"} {
		if _, ok := given[action]; ok {
			actions++
		}
	}
	_, reap := given["--reap"]
	_, seconds := given["--seconds"]
	_, rcheck := given["--rcheck"]
	_, update := given["--update"]
	switch {
	case actions > 1:
		return errors.New("only one of --set, --rcheck, --update and --remove is allowed")
	case reap && !seconds:
		return errors.New("--reap requires --seconds")
	case seconds && !rcheck && !update:
		return errors.New("--seconds requires --rcheck or --update")
	}
	return nil
}

// objectName leaves room for the zero byte behind the name of an accounting object.
func objectName(_ ruleContext, value string) error {
	if value == "" || len(value) >= 32 {
		return errors.New("names of accounting objects have 1 to 31 bytes")
	}
	return nil
}

// recentName leaves room for the zero byte behind the name of a list.
func recentName(_ ruleContext, value string) error {
	if value == "" || len(value) >= 200 {
		return errors.New("list names have 1 to 199 bytes")
	}
	return nil
}

func completeMark(given map[string]string) error {
	if len(given) != 1 {
		return errors.New("exactly one mark option is required")
	}
	return nil
}
