package iptables

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// retryAfter is how long a ServicePort that was refused stays set aside.
const retryAfter = time.Minute

// shelf holds the ServicePorts that are set aside.
type shelf map[proxy.ServicePortName]shelved

type shelved struct {
	offence
	until time.Time
}

// add sets aside what was found to offend. What is due for another try waits as well, and comes before these then:
// it was most likely refused for the same reason, and each try that fails costs as much as an Apply.
func (s shelf) add(found []offence, now time.Time) {
	for i, name := range s.due(now) {
		s[name] = shelved{s[name].offence, now.Add(retryAfter - time.Millisecond + time.Duration(i))} // in the same order
	}
	for _, o := range found {
		s[o.port.Name] = shelved{o, now.Add(retryAfter)}
	}
}

// review forgets what want no longer asks for in that form.
func (s shelf) review(want *proxy.Snapshot) {
	for name, x := range s {
		if want.Get(name) != x.port {
			delete(s, name)
		}
	}
}

// retry takes off the shelf at most n of those that have been there for long enough, and tells whether there were any.
func (s shelf) retry(now time.Time, n int) bool {
	due := s.due(now)
	for _, name := range due[:min(n, len(due))] {
		delete(s, name)
	}
	return len(due) > 0
}

// due are those that have been there for long enough, the longest first.
func (s shelf) due(now time.Time) []proxy.ServicePortName {
	var names []proxy.ServicePortName
	for name, x := range s {
		if !now.Before(x.until) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b proxy.ServicePortName) int {
		return cmp.Or(s[a].until.Compare(s[b].until), a.Compare(b))
	})
	return names
}

// without is want but for what is set aside.
func (s shelf) without(want *proxy.Snapshot) *proxy.Snapshot {
	if len(s) == 0 {
		return want
	}
	out := make(map[proxy.ServicePortName]*proxy.ServicePort, len(s))
	for name := range s {
		out[name] = nil
	}
	return want.Next(want.Node(), out)
}

// report lists what is set aside, by name, and in how long the first of it is due for another try.
func (s shelf) report(now time.Time) (aside []proxy.SetAside, again time.Duration) {
	for name, x := range s {
		aside = append(aside, proxy.SetAside{Name: name, Err: x.err})
		// At least a moment: 0 would ask for nothing.
		if in := max(x.until.Sub(now), time.Millisecond); again == 0 || in < again {
			again = in
		}
	}
	slices.SortFunc(aside, func(a, b proxy.SetAside) int { return a.Name.Compare(b.Name) })
	return aside, again
}
