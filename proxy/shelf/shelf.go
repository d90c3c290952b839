// Package shelf holds the ServicePorts that a mode sets aside because the kernel refuses them, so that they do not
// keep the others from being applied. It knows no mode.
package shelf

import (
	"cmp"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// RetryAfter is how long a ServicePort that was refused stays set aside.
const RetryAfter = time.Minute

// Shelf holds the ServicePorts that are set aside. It is not safe for concurrent use.
type Shelf map[proxy.ServicePortName]shelved

type shelved struct {
	Offence
	until time.Time
}

// Offence is a ServicePort that the kernel refuses, and what it said.
type Offence struct {
	Port *proxy.ServicePort
	Err  error
}

// Add sets aside what was found to offend. What is due for another try waits as well, and comes before these then:
// it was most likely refused for the same reason, and each try that fails costs as much as an Apply.
func (s Shelf) Add(found []Offence, now time.Time) {
	for i, name := range s.due(now) {
		s[name] = shelved{s[name].Offence, now.Add(RetryAfter - time.Millisecond + time.Duration(i))} // in the same order
	}
	for _, o := range found {
		s[o.Port.Name] = shelved{o, now.Add(RetryAfter)}
	}
}

// Review forgets what want no longer asks for in that form.
func (s Shelf) Review(want *proxy.Snapshot) {
	for name, x := range s {
		if want.Get(name) != x.Port {
			delete(s, name)
		}
	}
}

// Retry takes off the shelf at most n of those that have been there for long enough, and tells whether there were any.
func (s Shelf) Retry(now time.Time, n int) bool {
	due := s.due(now)
	for _, name := range due[:min(n, len(due))] {
		delete(s, name)
	}
	return len(due) > 0
}

// due are those that have been there for long enough, the longest first.
func (s Shelf) due(now time.Time) []proxy.ServicePortName {
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

// Without is want but for what is set aside.
func (s Shelf) Without(want *proxy.Snapshot) *proxy.Snapshot {
	if len(s) == 0 {
		return want
	}
	out := make(map[proxy.ServicePortName]*proxy.ServicePort, len(s))
	for name := range s {
		out[name] = nil
	}
	return want.Next(want.Node(), out)
}

// Report lists what is set aside, by name, and in how long the first of it is due for another try.
func (s Shelf) Report(now time.Time) (aside []proxy.SetAside, again time.Duration) {
	for name, x := range s {
		aside = append(aside, proxy.SetAside{Name: name, Err: x.Err})
		// At least a moment: 0 would ask for nothing.
		if in := max(x.until.Sub(now), time.Millisecond); again == 0 || in < again {
			again = in
		}
	}
	slices.SortFunc(aside, func(a, b proxy.SetAside) int { return a.Name.Compare(b.Name) })
	return aside, again
}
