package policy

import (
	"slices"

	"github.com/sluice-proxy/sluice/proxy"
)

// nearest is the part of the ready endpoints that hints reserve for this node, else for its zone, else
// all of them. It is never empty unless ready is.
func nearest(ready []candidate, node *proxy.Node) []candidate {
	if part := hinted(ready, (*Endpoint).nodeHints, node.Name); part != nil {
		return part
	}
	if part := hinted(ready, (*Endpoint).zoneHints, node.Zone); part != nil {
		return part
	}
	return ready
}

// hinted is the part of list whose hints name the place; nil if none does or if any endpoint has no
// hints, because then the hints do not share out all of the traffic.
func hinted(list []candidate, hints func(*Endpoint) []string, place string) []candidate {
	if place == "" {
		return nil
	}
	named := 0
	for _, c := range list {
		h := hints(c.Endpoint)
		if len(h) == 0 {
			return nil
		}
		if slices.Contains(h, place) {
			named++
		}
	}
	if named == 0 {
		return nil
	}
	return only(list, func(e *Endpoint) bool { return slices.Contains(hints(e), place) })
}

func (e *Endpoint) nodeHints() []string { return e.Nodes }

func (e *Endpoint) zoneHints() []string { return e.Zones }
