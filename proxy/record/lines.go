package record

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// line is an object of the file. Only one of its parts is there, beside Family.
type line struct {
	Head     *headLine  `json:"sluice,omitempty"` // the first one
	Family   string     `json:"family,omitempty"`
	Node     *nodeLine  `json:"node,omitempty"` // before all others of its family
	Port     *portLine  `json:"servicePort,omitempty"`
	SetAside *asideLine `json:"setAside,omitempty"`
	Input    *inputLine `json:"input,omitempty"`
	End      *int       `json:"end,omitempty"` // the last one: how many came before
}

type headLine struct {
	Version int       `json:"recordVersion"`
	Taken   time.Time `json:"taken"`
	Program string    `json:"version"`
	Mode    string    `json:"mode"`
}

type nameLine struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Port      string `json:"port,omitempty"`
	Protocol  string `json:"protocol"`
}

func nameLineOf(n proxy.ServicePortName) nameLine {
	return nameLine{n.Namespace, n.Name, n.Port, n.Protocol.String()}
}

func (l nameLine) name() (proxy.ServicePortName, error) {
	protocol, err := parse(protocols, l.Protocol)
	return proxy.ServicePortName{Namespace: l.Namespace, Name: l.Name, Port: l.Port, Protocol: protocol}, err
}

type asideLine struct {
	nameLine
	Why string `json:"why"`
}

type nodeLine struct {
	Name           string         `json:"name"`
	Zone           string         `json:"zone,omitempty"`
	IP             netip.Addr     `json:"ip"`
	Addrs          []netip.Addr   `json:"addresses"`
	NodePorts      nodePortsLine  `json:"nodePorts"`
	PodSource      podSourceLine  `json:"podSource"`
	MasqueradeAll  bool           `json:"masqueradeAll,omitempty"`
	MasqueradeMark uint32         `json:"masqueradeMark"`
	ServiceCIDRs   []netip.Prefix `json:"serviceCIDRs"`
	Relay          bool           `json:"relay,omitempty"`
}

type nodePortsLine struct {
	All       bool         `json:"all,omitempty"`
	Addrs     []netip.Addr `json:"addresses"`
	Localhost bool         `json:"localhost,omitempty"`
	Relayed   bool         `json:"relayed,omitempty"`
}

type podSourceLine struct {
	Kind      string       `json:"kind"`
	Prefix    netip.Prefix `json:"prefix"`
	Interface string       `json:"interface,omitempty"`
}

// podSources are the words for the ways to recognise pods.
var podSources = map[proxy.PodSourceKind]string{
	proxy.PodSourceNone: "none", proxy.PodSourcePrefix: "prefix",
	proxy.PodSourceInterface: "interface", proxy.PodSourceInterfacePrefix: "interfacePrefix",
}

func nodeLineOf(n *proxy.Node, relay bool) *nodeLine {
	p := n.NodePorts
	return &nodeLine{
		Name: n.Name, Zone: n.Zone, IP: n.IP, Addrs: n.Addrs,
		NodePorts:     nodePortsLine{p.All, p.Addrs, p.Localhost, p.Relayed},
		PodSource:     podSourceLine{podSources[n.PodSource.Kind], n.PodSource.Prefix, n.PodSource.Interface},
		MasqueradeAll: n.MasqueradeAll, MasqueradeMark: n.MasqueradeMark, ServiceCIDRs: n.ServiceCIDRs, Relay: relay,
	}
}

func (l *nodeLine) node(f proxy.Family) (*proxy.Node, error) {
	p := l.NodePorts
	n := &proxy.Node{
		Family: f, Name: l.Name, Zone: l.Zone, IP: l.IP, Addrs: l.Addrs,
		NodePorts:     proxy.NodePortAddrs{All: p.All, Addrs: p.Addrs, Localhost: p.Localhost, Relayed: p.Relayed},
		PodSource:     proxy.PodSource{Prefix: l.PodSource.Prefix, Interface: l.PodSource.Interface},
		MasqueradeAll: l.MasqueradeAll, MasqueradeMark: l.MasqueradeMark, ServiceCIDRs: l.ServiceCIDRs,
	}
	for kind, word := range podSources {
		if word == l.PodSource.Kind {
			n.PodSource.Kind = kind
			return n, nil
		}
	}
	return nil, fmt.Errorf("%q is no way to recognise pods", l.PodSource.Kind)
}

// portLine is a ServicePort. That a list is there and empty may mean something else than that it is not there.
type portLine struct {
	nameLine
	Priority            bool             `json:"priority,omitempty"`
	Frontends           []frontendLine   `json:"frontends"`
	Cluster             []backendLine    `json:"cluster"`
	Local               []backendLine    `json:"local"`
	Affinity            time.Duration    `json:"affinityNanoseconds,omitempty"`
	Scheduler           string           `json:"scheduler,omitempty"`
	Keep                []netip.AddrPort `json:"keep"`
	HealthCheckNodePort uint16           `json:"healthCheckNodePort,omitempty"`
	LocalReady          []netip.Addr     `json:"localReady"`
}

type backendLine struct {
	Addr  netip.AddrPort `json:"address"`
	Local bool           `json:"here,omitempty"`
}

type frontendLine struct {
	Kind    string                      `json:"kind"`
	Addr    netip.AddrPort              `json:"address"`
	Routes  [proxy.NumSources]routeLine `json:"routes"` // from pods, from the node, from outside
	Allowed []netip.Prefix              `json:"allowed"`
}

type routeLine struct {
	Verdict    string `json:"verdict"`
	Pool       string `json:"pool"`
	Masquerade bool   `json:"masquerade,omitempty"`
}

func portLineOf(s *proxy.ServicePort) *portLine {
	return &portLine{
		nameLine: nameLineOf(s.Name), Priority: s.Priority, Frontends: each(s.Frontends, frontendLineOf),
		Cluster: each(s.Cluster, backendLineOf), Local: each(s.Local, backendLineOf),
		Affinity: s.Affinity, Scheduler: s.Scheduler, Keep: s.Keep, HealthCheckNodePort: s.HealthCheckNodePort, LocalReady: s.LocalReady,
	}
}

func backendLineOf(b proxy.Backend) backendLine { return backendLine(b) }

func frontendLineOf(f proxy.Frontend) frontendLine {
	l := frontendLine{Kind: f.Kind.String(), Addr: f.Addr, Allowed: f.Allowed}
	for source, r := range f.Routes {
		l.Routes[source] = routeLine{r.Verdict.String(), r.Pool.String(), r.Masquerade}
	}
	return l
}

func (l *portLine) port() (*proxy.ServicePort, error) {
	name, err := l.name()
	if err != nil {
		return nil, err
	}
	s := &proxy.ServicePort{
		Name: name, Priority: l.Priority, Affinity: l.Affinity, Scheduler: l.Scheduler, Keep: l.Keep,
		Cluster:             each(l.Cluster, func(b backendLine) proxy.Backend { return proxy.Backend(b) }),
		Local:               each(l.Local, func(b backendLine) proxy.Backend { return proxy.Backend(b) }),
		HealthCheckNodePort: l.HealthCheckNodePort, LocalReady: l.LocalReady,
	}
	s.Frontends = each(l.Frontends, func(f frontendLine) proxy.Frontend {
		frontend, wrong := f.frontend()
		if wrong != nil {
			err = wrong
		}
		return frontend
	})
	return s, err
}

func (l frontendLine) frontend() (proxy.Frontend, error) {
	f := proxy.Frontend{Addr: l.Addr, Allowed: l.Allowed}
	var err error
	if f.Kind, err = parse(kinds, l.Kind); err != nil {
		return f, err
	}
	for source, r := range l.Routes {
		to := &f.Routes[source]
		to.Masquerade = r.Masquerade
		if to.Verdict, err = parse(verdicts, r.Verdict); err != nil {
			return f, err
		}
		if to.Pool, err = parse(pools, r.Pool); err != nil {
			return f, err
		}
	}
	return f, nil
}
