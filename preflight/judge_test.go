package preflight

import (
	"errors"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/proxy"
)

// clean is a node that has everything and nobody else.
func clean() Facts {
	return Facts{
		Modes:   []Mode{{Name: "nftables"}, {Name: "iptables"}},
		Rules:   []Rules{{"nft", proxy.IPv4, "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -m comment --comment mine -j SLUICE-VIP\nCOMMIT\n"}},
		Sysctls: map[string]string{"net/ipv4/ip_forward": "1"},
		Tracked: 10, TrackedMax: 100,
		Interfaces: []string{"lo", "eth0"},
		Listeners:  []Listener{{Protocol: proxy.TCP, Port: 22, Process: "sshd"}},
	}
}

func want() Want {
	return Want{MasqueradeMark: 0x4000, RouteMark: 0x2000, NodePorts: PortRange{30000, 32767}, Ports: []uint16{10256, 10249}}
}

func TestCleanNodeIsFine(t *testing.T) {
	for _, f := range Judge(clean(), want()) {
		if f.Severity != OK {
			t.Errorf("%+v", f)
		}
	}
}

func TestWhatGetsInTheWayIsFound(t *testing.T) {
	lacking := func(f *Facts) {
		f.Modes[0].Missing = map[proxy.Family]error{proxy.IPv4: errors.New("no nft"), proxy.IPv6: errors.New("no nft")}
	}
	rules := func(backend, text string) func(*Facts) {
		return func(f *Facts) { f.Rules = append(f.Rules, Rules{backend, proxy.IPv4, text}) }
	}
	routed := func(f *Facts) { f.Sysctls["net/ipv4/conf/all/route_localnet"] = "1" }
	relayed := func(modes ...string) func(*Want) {
		return func(w *Want) { w.Localhost, w.Relays = true, modes }
	}
	for name, c := range map[string]struct {
		facts func(*Facts)
		want  func(*Want)
		worst Severity
		says  string // of the worst finding
	}{
		"wanted mode cannot work":      {lacking, func(w *Want) { w.Mode = "nftables" }, Problem, "no nft"},
		"another mode cannot":          {lacking, func(w *Want) { w.Mode = "iptables" }, OK, "everything"},
		"the best works":               {lacking, nil, OK, "not needed"},
		"no mode works":                {func(f *Facts) { lacking(f); f.Modes = f.Modes[:1] }, nil, Problem, "no mode"},
		"IPv6 alone is missing":        {func(f *Facts) { f.Modes[1].Missing = map[proxy.Family]error{proxy.IPv6: errors.New("no v6")} }, nil, OK, "everything"},
		"kube-proxy in iptables":       {rules("nft", "\n-A PREROUTING -j KUBE-SERVICES\n"), nil, Warning, "kube-proxy's rules"},
		"kube-proxy in nftables":       {func(f *Facts) { f.Nft = "table ip6 kube-proxy {\n}\n" }, nil, Warning, "kube-proxy's table is in nftables (ip6)"},
		"kube-ipvs0":                   {func(f *Facts) { f.Interfaces = append(f.Interfaces, "kube-ipvs0") }, nil, Warning, "kube-ipvs0"},
		"kube-ipvs0 in that mode":      {func(f *Facts) { f.Interfaces = append(f.Interfaces, "kube-ipvs0") }, func(w *Want) { w.Mode = "ipvs" }, OK, ""},
		"Cilium":                       {func(f *Facts) { f.Interfaces = append(f.Interfaces, "cilium_host") }, nil, Warning, "Cilium"},
		"kube-router":                  {rules("nft", "\n:KUBE-ROUTER-SERVICES - [0:0]\n"), nil, Warning, "kube-router"},
		"both backends":                {rules("legacy", "*filter\n-A INPUT -j ACCEPT\n"), nil, Warning, "both backends"},
		"empty other backend":          {rules("legacy", "*filter\n:INPUT ACCEPT\n"), nil, OK, ""},
		"Calico in FORWARD alone":      {rules("nft", "\n-A FORWARD -m comment -j cali-FORWARD\n"), func(w *Want) { w.Mode = "ipvs" }, Warning, "Calico"},
		"Calico in INPUT too":          {rules("nft", "\n-A FORWARD -m c -j cali-FORWARD\n-A INPUT -m c -j cali-INPUT\n"), func(w *Want) { w.Mode = "ipvs" }, OK, ""},
		"Calico in another mode":       {rules("nft", "\n-A FORWARD -m comment -j cali-FORWARD\n"), nil, OK, ""},
		"mark with mask":               {rules("nft", "\n-A CNI -j MARK --set-xmark 0x4000/0x4000\n"), nil, Warning, "iptables chain CNI"},
		"mark of others":               {rules("nft", "\n-A cali-x -j MARK --set-xmark 0x10000/0xf0000\n"), nil, OK, ""},
		"mark of Kubernetes":           {rules("nft", "\n-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n"), nil, OK, ""},
		"comparison of the whole mark": {rules("nft", "\n-A X -m mark --mark 0x4001 -j ACCEPT\n"), nil, Warning, "chain X"},
		"the whole mark, our bit":      {rules("nft", "\n-A X -j MARK --set-xmark 0xca6c/0xffffffff\n"), nil, Warning, "chain X"},
		"the whole mark, other bits":   {rules("nft", "\n-A X -j MARK --set-xmark 0x1/0xffffffff\n"), nil, OK, ""},
		"the bit that leads to IPVS":   {rules("nft", "\n-A X -j MARK --set-xmark 0x2000/0x2000\n"), func(w *Want) { w.Mode = "ipvs" }, Warning, "0x2000"},
		"that bit in another mode":     {rules("nft", "\n-A X -j MARK --set-xmark 0x2000/0x2000\n"), nil, OK, ""},
		"WireGuard in nftables": {func(f *Facts) {
			f.Nft = "table ip wg {\n meta l4proto udp meta mark 0x0000ca6c ct mark set meta mark\n}\n"
		}, nil, Warning, "meta mark 0x0000ca6c"},
		"the whole mark in nftables":   {func(f *Facts) { f.Nft = "table ip x {\n meta mark set 0x00000001\n}\n" }, nil, OK, ""},
		"routing by the whole mark":    {func(f *Facts) { f.Routing = []MarkRule{{100, 0xca6c, 0xffffffff}} }, nil, Warning, "ip rule 100"},
		"routing by other bits":        {func(f *Facts) { f.Routing = []MarkRule{{100, 0x1, 0xffffffff}} }, nil, OK, ""},
		"mark in nftables":             {func(f *Facts) { f.Nft = "table inet fw {\n meta mark set meta mark | 0x00004000\n}\n" }, nil, Warning, "nftables"},
		"kept bits in nftables":        {func(f *Facts) { f.Nft = "table inet fw {\n meta mark set meta mark & 0xffff7fff\n}\n" }, nil, OK, ""},
		"mark in our own table":        {func(f *Facts) { f.Nft = "table ip sluice {\n meta mark set meta mark | 0x00004000\n}\n" }, nil, OK, ""},
		"routing rule":                 {func(f *Facts) { f.Routing = []MarkRule{{100, 0x4000, 0x4000}} }, nil, Warning, "ip rule 100"},
		"loopback routed in vain":      {routed, nil, Warning, "route_localnet is 1 and Sluice does not need it"},
		"loopback routed, and needed":  {routed, func(w *Want) { w.Localhost = true }, OK, ""},
		"loopback routed, but relayed": {routed, relayed("nftables"), Warning, "route_localnet is 1"},
		"relayed in another mode":      {routed, relayed("iptables"), OK, ""},
		"relayed in a mode not chosen": {routed, func(w *Want) { relayed("nftables")(w); w.Mode = "iptables" }, OK, ""},
		"no forwarding":                {func(f *Facts) { f.Sysctls["net/ipv4/ip_forward"] = "0" }, nil, Problem, "ip_forward is 0"},
		"no forwarding of IPv6":        {func(f *Facts) { f.Sysctls["net/ipv6/conf/all/forwarding"] = "0" }, nil, Warning, "forwarding is 0"},
		"connections at 80 %":          {func(f *Facts) { f.Tracked = 80 }, nil, Warning, "80 of 100"},
		"connections at 95 %":          {func(f *Facts) { f.Tracked = 95 }, nil, Problem, "95 of 100"},
		"no connection tracking":       {func(f *Facts) { f.Tracked, f.TrackedMax = 0, 0 }, nil, OK, ""},
		"listener on a NodePort":       {func(f *Facts) { f.Listeners[0].Port = 30080 }, nil, Warning, "tcp *:30080 (sshd)"},
		"that only localhost reaches":  {func(f *Facts) { f.Listeners[0].Port, f.Listeners[0].Loopback = 30080, true }, nil, OK, ""},
		"with NodePorts there":         {func(f *Facts) { f.Listeners[0].Port, f.Listeners[0].Loopback = 30080, true }, func(w *Want) { w.Localhost = true }, Warning, "30080"},
		"health check node port":       {func(f *Facts) { f.Listeners[0] = Listener{Protocol: proxy.TCP, Port: 32000, Process: "sluice"} }, nil, OK, ""},
		"health port taken":            {func(f *Facts) { f.Listeners[0].Port = 10256 }, nil, Problem, "tcp *:10256 (sshd)"},
		"Sluice runs":                  {func(f *Facts) { f.Listeners[0] = Listener{Protocol: proxy.TCP, Port: 10256, Process: "sluice"} }, nil, OK, ""},
	} {
		t.Run(name, func(t *testing.T) {
			facts, w := clean(), want()
			if c.facts != nil {
				c.facts(&facts)
			}
			if c.want != nil {
				c.want(&w)
			}
			findings := Judge(facts, w)
			if worst := Worst(findings); worst != c.worst {
				t.Errorf("worst is %s, want %s: %+v", worst, c.worst, findings)
			}
			if c.worst != OK && !strings.Contains(findings[0].Text, c.says) {
				t.Errorf("no %q in %+v", c.says, findings[0])
			}
			if c.worst != OK && findings[0].Remedy == "" {
				t.Errorf("nothing says what to do: %+v", findings[0])
			}
		})
	}
}
