package explain

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"text/tabwriter"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// PortAnswer is all that the node does for one port of a Service in one family.
type PortAnswer struct {
	Port       *proxy.ServicePort
	Candidates []policy.Candidate // nil if they are not known
	SetAside   error              // why the kernel refused it; nil if it did not
	Kernel     *Kernel            // what implements it in the kernel, nil if nobody looked
}

// Service is all that the node does for a Service, sorted by port. It is nil if that is nothing.
func (v View) Service(name proxy.ServiceName) []PortAnswer {
	var list []PortAnswer
	for port, sp := range v.Snapshot.All() {
		if port.Service() != name {
			continue
		}
		list = append(list, PortAnswer{Port: sp, Candidates: v.candidates(port), SetAside: v.Refusal(port)})
	}
	slices.SortFunc(list, func(a, b PortAnswer) int { return a.Port.Name.Compare(b.Port.Name) })
	return list
}

// WriteService writes for people what a node does for a Service.
func WriteService(w io.Writer, ports []PortAnswer) error {
	for i, a := range ports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%v, %v\n", a.Port.Name, a.Port.Name.Protocol)
		if a.SetAside != nil {
			fmt.Fprintf(w, "not served, because the kernel refused it: %v\n", a.SetAside)
		}
		if err := writeFrontends(w, a.Port); err != nil {
			return err
		}
		if err := a.writeCandidates(w); err != nil {
			return err
		}
		if a.Kernel != nil {
			fmt.Fprintf(w, "the kernel %s\n", a.Kernel.verdict())
		}
		if err := a.Kernel.write(w); err != nil {
			return err
		}
	}
	return nil
}

func writeFrontends(w io.Writer, port *proxy.ServicePort) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FRONTEND\tKIND\tFROM PODS\tFROM THE NODE\tFROM OUTSIDE")
	for _, f := range port.Frontends {
		fmt.Fprintf(t, "%v\t%v\t%s\t%s\t%s\n", f.Addr, f.Kind,
			routeText(f.Routes[proxy.FromPod]), routeText(f.Routes[proxy.FromNode]), routeText(f.Routes[proxy.FromOutside]))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range port.Frontends {
		if f.Allowed != nil {
			_, err := fmt.Fprintf(w, "load balancer IPs are for %s alone\n", prefixes(f.Allowed))
			return err
		}
	}
	return nil
}

// routeText is "cluster, masqueraded" or "reject".
func routeText(r proxy.Route) string {
	if r.Verdict != proxy.Forward {
		return r.Verdict.String()
	}
	if r.Masquerade {
		return r.Pool.String() + ", masqueraded"
	}
	return r.Pool.String()
}

// writeCandidates writes the endpoints with a reason for each pool.
func (a PortAnswer) writeCandidates(w io.Writer) error {
	if len(a.Candidates) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ENDPOINT\tNODE\tPOOL CLUSTER\tPOOL LOCAL")
	for _, c := range a.Candidates[:min(shown, len(a.Candidates))] {
		fmt.Fprintf(t, "%v\t%s\t%s\t%s\n", c.Addr, c.NodeName, judgementText(c.Pools[proxy.ClusterPool]), judgementText(c.Pools[proxy.LocalPool]))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := len(a.Candidates) - shown; more > 0 {
		_, err := fmt.Fprintf(w, "… and %d more\n", more)
		return err
	}
	return nil
}

func judgementText(j policy.Judgement) string { return yesNo(j.Used) + ": " + j.Why }

// portJSON is the written form of a PortAnswer for programs.
type portJSON struct {
	Service   string          `json:"service"` // namespace/name:port
	Protocol  string          `json:"protocol"`
	SetAside  string          `json:"setAside,omitempty"`
	Affinity  int             `json:"affinitySeconds,omitempty"`
	Frontends []frontendJSON  `json:"frontends"`
	Endpoints []candidateJSON `json:"endpoints,omitempty"`
	Kernel    *kernelJSON     `json:"kernel,omitempty"`
}

type frontendJSON struct {
	Address netip.AddrPort       `json:"address"`
	Kind    string               `json:"kind"`
	Allowed []netip.Prefix       `json:"allowed,omitempty"`
	Routes  map[string]routeJSON `json:"routes"` // by source
}

type routeJSON struct {
	Verdict    string `json:"verdict"`
	Pool       string `json:"pool,omitempty"`
	Masquerade bool   `json:"masquerade,omitempty"`
}

type candidateJSON struct {
	Address netip.AddrPort              `json:"address"`
	Node    string                      `json:"node,omitempty"`
	Pools   map[string]policy.Judgement `json:"pools"`
}

// WriteServiceJSON writes for programs what a node does for a Service.
func WriteServiceJSON(w io.Writer, ports []PortAnswer) error {
	list := []portJSON{}
	for _, a := range ports {
		list = append(list, a.json())
	}
	return writeJSON(w, list)
}

func (a PortAnswer) json() portJSON {
	j := portJSON{Service: a.Port.Name.String(), Protocol: a.Port.Name.Protocol.String(), Affinity: int(a.Port.Affinity.Seconds()), Kernel: a.Kernel.json()}
	if a.SetAside != nil {
		j.SetAside = a.SetAside.Error()
	}
	for _, f := range a.Port.Frontends {
		one := frontendJSON{Address: f.Addr, Kind: f.Kind.String(), Allowed: f.Allowed, Routes: map[string]routeJSON{}}
		for source, r := range f.Routes {
			route := routeJSON{Verdict: r.Verdict.String()}
			if r.Verdict == proxy.Forward {
				route.Pool, route.Masquerade = r.Pool.String(), r.Masquerade
			}
			one.Routes[proxy.Source(source).String()] = route
		}
		j.Frontends = append(j.Frontends, one)
	}
	for _, c := range a.Candidates {
		j.Endpoints = append(j.Endpoints, candidateJSON{c.Addr, c.NodeName, map[string]policy.Judgement{
			proxy.ClusterPool.String(): c.Pools[proxy.ClusterPool], proxy.LocalPool.String(): c.Pools[proxy.LocalPool],
		}})
	}
	return j
}
