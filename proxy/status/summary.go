package status

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/history"
)

// listed is how many of what is amiss are listed; the rest is counted.
const listed = 100

// summary is the answer to what the node does as a whole.
type summary struct {
	Node     string    `json:"node"`
	Mode     string    `json:"mode"`
	Version  string    `json:"version"`
	Now      time.Time `json:"now"`
	Started  time.Time `json:"started"`  // another one is another process
	Services int       `json:"services"` // in either family

	Families  []familySummary `json:"families"`
	SetAside  few[setAside]   `json:"setAside"`
	Conflicts few[conflict]   `json:"conflicts"`
}

// few is the beginning of a list that may be long.
type few[T any] struct {
	First []T `json:"first"`
	Count int `json:"count"`
}

func (f *few[T]) add(x T) {
	if f.Count++; len(f.First) < listed {
		f.First = append(f.First, x)
	}
}

type familySummary struct {
	Family       string         `json:"family"`
	Served       bool           `json:"served"` // something was applied
	ServicePorts int            `json:"servicePorts"`
	Frontends    int            `json:"frontends"`
	Backends     int            `json:"backends"`
	Unserved     int            `json:"unserved"` // ServicePorts without a backend anywhere
	Kernel       history.Kernel `json:"kernel"`
}

// setAside is a ServicePort that the kernel refuses.
type setAside struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Family   string `json:"family"`
	Why      string `json:"why"`
}

// conflict is a frontend that several ServicePorts claim.
type conflict struct {
	Frontend string   `json:"frontend"`
	Protocol string   `json:"protocol"`
	Owner    string   `json:"owner"`
	Losers   []string `json:"losers"`
}

func (p *page) summary(*http.Request) (any, error) {
	s := summary{
		Node: p.Node, Mode: p.Mode, Version: p.Version, Now: time.Now(), Started: p.History.Started(),
		SetAside: few[setAside]{First: []setAside{}}, Conflicts: few[conflict]{First: []conflict{}},
	}
	services := map[proxy.ServiceName]bool{}
	for _, f := range proxy.Families {
		view := p.View(f)
		family := familySummary{Family: f.String(), Served: view != nil, Kernel: p.History.Kernel(f)}
		if view != nil {
			family.count(view.Snapshot)
			for name := range view.Snapshot.All() {
				services[name.Service()] = true
			}
			for _, a := range view.SetAside {
				s.SetAside.add(setAside{a.Name.String(), a.Name.Protocol.String(), f.String(), shorten(a.Err.Error())})
			}
		}
		s.Families = append(s.Families, family)
		for _, c := range p.History.Conflicts(f) {
			s.Conflicts.add(conflict{
				c.Frontend.Addr.String(), c.Frontend.Protocol.String(), c.Owner.String(), names(c.Losers[:min(len(c.Losers), listed)]),
			})
		}
	}
	s.Services = len(services)
	return s, nil
}

func (f *familySummary) count(snapshot *proxy.Snapshot) {
	f.ServicePorts = snapshot.Len()
	for _, port := range snapshot.All() {
		f.Frontends += len(port.Frontends)
		f.Backends += len(pool(port))
		if !serves(port) {
			f.Unserved++
		}
	}
}

// pool is the larger of a ServicePort's pools: that of all backends, unless nothing uses it.
func pool(port *proxy.ServicePort) []proxy.Backend {
	if port.Cluster != nil {
		return port.Cluster
	}
	return port.Local
}

// serves tells whether any frontend forwards anything.
func serves(port *proxy.ServicePort) bool {
	return slices.ContainsFunc(port.Frontends, func(f proxy.Frontend) bool { return f.Routes.Serves() })
}

func names(list []proxy.ServicePortName) []string {
	texts := make([]string, len(list))
	for i, name := range list {
		texts[i] = name.String()
	}
	return texts
}

// longest is how much is shown of what a kernel tool said.
const longest = 600

func shorten(text string) string {
	if len(text) <= longest {
		return text
	}
	return text[:longest] + " …" // the encoder mends a letter that is cut
}

// syncs is the answer to what was done after a sync that is known, or all that is remembered.
func (p *page) syncs(r *http.Request) (any, error) {
	var after uint64
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, badRequest("after is no number")
		}
	}
	return p.History.Since(after), nil
}
