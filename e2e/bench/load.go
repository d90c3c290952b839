package main

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// defaultEndpoints is how many a Service has, if a load does not say it.
	defaultEndpoints = 2

	// maxServices fit into the ClusterIPs, maxEndpoints into one EndpointSlice.
	maxServices  = 60000
	maxEndpoints = 100
)

// load is how much there is to serve.
type load struct {
	services, endpoints int  // endpoints of each Service that has any
	alone               bool // kube-proxy does not take part
}

// String is what -n and -alone take.
func (l load) String() string {
	if l.endpoints == defaultEndpoints {
		return strconv.Itoa(l.services)
	}
	return fmt.Sprintf("%dx%d", l.services, l.endpoints)
}

// title is for readers.
func (l load) title() string {
	text := thousands(l.services) + " services"
	if l.endpoints != defaultEndpoints {
		text += fmt.Sprintf(" × %d endpoints", l.endpoints)
	}
	return text
}

// cell is for a column of numbers of services.
func (l load) cell() string {
	text := thousands(l.services)
	if l.endpoints != defaultEndpoints {
		text += fmt.Sprintf(" × %d", l.endpoints)
	}
	return text
}

// parseLoads reads loads like "1000 5000x50".
func parseLoads(text string, alone bool) ([]load, error) {
	var all []load
	for _, word := range words(text) {
		l := load{endpoints: defaultEndpoints, alone: alone}
		services, endpoints, given := strings.Cut(word, "x")
		var err error
		if l.services, err = strconv.Atoi(services); err == nil && given {
			l.endpoints, err = strconv.Atoi(endpoints)
		}
		if err != nil {
			return nil, fmt.Errorf("%q is no number of services, with or without x and a number of endpoints", word)
		}
		if l.services < emptyEvery || l.services > maxServices || l.services%emptyEvery != 0 {
			return nil, fmt.Errorf("%v: want a multiple of %d services up to %d", l, emptyEvery, maxServices)
		}
		if l.endpoints < 2 || l.endpoints > maxEndpoints {
			return nil, fmt.Errorf("%v: want 2 to %d endpoints", l, maxEndpoints)
		}
		all = append(all, l)
	}
	return all, nil
}

// continues tells whether a load is another one with more Services, so that the same cluster serves both.
func (l load) continues(o load) bool { return l.endpoints == o.endpoints && l.services >= o.services }

// listLoads is the opposite of parseLoads, for those loads that are measured alone or not.
func listLoads(all []load, alone bool) string {
	var list []string
	for _, l := range all {
		if l.alone == alone {
			list = append(list, l.String())
		}
	}
	return strings.Join(list, " ")
}
