package status

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/explain"
)

const (
	rowsUsual, rowsMost = 50, 200
	// shown is how many frontends and backends a row names; the rest is counted.
	shown = 6
)

// services is the answer to which Services there are: those that match, sorted, from an offset on.
type services struct {
	Count   int   `json:"count"`   // ServicePorts in either family
	Matched int   `json:"matched"` // of them
	Rows    []row `json:"rows"`
}

// row is a ServicePort in all families that have it.
type row struct {
	Service  string    `json:"service"` // namespace/name
	Port     string    `json:"port"`    // empty for an unnamed one
	Protocol string    `json:"protocol"`
	Families []rowHalf `json:"families"`
}

type rowHalf struct {
	Family    string     `json:"family"`
	SetAside  string     `json:"setAside,omitempty"` // why; empty: it is not
	Serves    bool       `json:"serves"`             // there is a backend
	Frontends few[front] `json:"frontends"`
	Backends  few[back]  `json:"backends"`
	Here      int        `json:"here"` // backends on this node
	Affinity  int        `json:"affinitySeconds,omitempty"`
}

type front struct {
	Address netip.AddrPort `json:"address"`
	Kind    string         `json:"kind"`
}

type back struct {
	Address netip.AddrPort `json:"address"`
	Here    bool           `json:"here,omitempty"`
}

// services answers q (words that all must occur), only (see filters), offset and limit.
func (p *page) services(r *http.Request) (any, error) {
	query := r.URL.Query()
	offset, limit, err := window(query.Get("offset"), query.Get("limit"))
	if err != nil {
		return nil, err
	}
	wanted, known := filters[query.Get("only")]
	if !known {
		return nil, badRequest("only is none of aside, unserved and nothing")
	}
	all := p.look()
	var found []proxy.ServicePortName
	s := search(query.Get("q"))
	matches := func(name proxy.ServicePortName) bool {
		return slices.ContainsFunc(all, func(l look) bool {
			port := l.Snapshot.Get(name)
			return port != nil && wanted(l, port) && s.matches(port)
		})
	}
	answer := services{Rows: []row{}}
	for i, l := range all {
		for name := range l.Snapshot.All() {
			if i > 0 && all[0].Snapshot.Get(name) != nil {
				continue // the first family has it
			}
			answer.Count++
			if matches(name) {
				found = append(found, name)
			}
		}
	}
	slices.SortFunc(found, proxy.ServicePortName.Compare)
	answer.Matched = len(found)
	offset = min(offset, len(found))
	for _, name := range found[offset:min(offset+limit, len(found))] {
		answer.Rows = append(answer.Rows, rowOf(all, name))
	}
	return answer, nil
}

// window reads which part of a list is asked for.
func window(offset, limit string) (int, int, error) {
	read := func(text string, usual, most int) (int, error) {
		if text == "" {
			return usual, nil
		}
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return 0, badRequest("offset or limit is no number")
		}
		return min(int(n), most), nil
	}
	from, err := read(offset, 0, 1<<30)
	if err != nil {
		return 0, 0, err
	}
	n, err := read(limit, rowsUsual, rowsMost)
	return from, n, err
}

// look is a view with what is set aside in it by name.
type look struct {
	*explain.View
	family proxy.Family
	aside  map[proxy.ServicePortName]error
}

// look is what is applied now in each family.
func (p *page) look() []look {
	var all []look
	for _, f := range proxy.Families {
		view := p.View(f)
		if view == nil {
			continue
		}
		l := look{view, f, map[proxy.ServicePortName]error{}}
		for _, a := range view.SetAside {
			l.aside[a.Name] = a.Err
		}
		all = append(all, l)
	}
	return all
}

// filters are what only may be.
var filters = map[string]func(look, *proxy.ServicePort) bool{
	"":         func(look, *proxy.ServicePort) bool { return true },
	"aside":    func(l look, port *proxy.ServicePort) bool { return l.aside[port.Name] != nil },
	"unserved": func(_ look, port *proxy.ServicePort) bool { return !serves(port) },
}

func rowOf(all []look, name proxy.ServicePortName) row {
	r := row{Service: name.Service().String(), Port: name.Port, Protocol: name.Protocol.String(), Families: []rowHalf{}}
	for _, l := range all {
		if port := l.Snapshot.Get(name); port != nil {
			r.Families = append(r.Families, halfOf(l, port))
		}
	}
	return r
}

func halfOf(l look, port *proxy.ServicePort) rowHalf {
	h := rowHalf{
		Family: l.family.String(), Serves: serves(port), Affinity: int(port.Affinity.Seconds()),
		Frontends: few[front]{First: []front{}}, Backends: few[back]{First: []back{}},
	}
	if err := l.aside[port.Name]; err != nil {
		h.SetAside = shorten(err.Error())
	}
	for _, f := range port.Frontends[:min(shown, len(port.Frontends))] {
		h.Frontends.add(front{f.Addr, f.Kind.String()})
	}
	h.Frontends.Count = len(port.Frontends)
	backends := pool(port)
	for _, b := range backends {
		if b.Local {
			h.Here++
		}
	}
	for _, b := range backends[:min(shown, len(backends))] {
		h.Backends.add(back{b.Addr, b.Local})
	}
	h.Backends.Count = len(backends)
	return h
}
