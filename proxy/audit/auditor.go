package audit

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// Applied is what a family's dataplane applied last.
type Applied struct {
	Snapshot *proxy.Snapshot
	SetAside []proxy.SetAside
}

// served is the snapshot without what the kernel refused.
func (a *Applied) served() *proxy.Snapshot {
	if len(a.SetAside) == 0 {
		return a.Snapshot
	}
	out := make(map[proxy.ServicePortName]*proxy.ServicePort, len(a.SetAside))
	for _, x := range a.SetAside {
		out[x.Name] = nil
	}
	return a.Snapshot.Next(a.Snapshot.Node(), out)
}

// Auditor looks at the kernel, for one at a time: a look at many Services costs a second of a processor or more.
type Auditor struct {
	inspectors map[proxy.Family]proxy.Inspector
	applied    func(proxy.Family) *Applied
	turn       chan struct{} // holds the right to look
	pause      time.Duration // between two looks
}

// New makes an Auditor. Applied gives nil for a family of which nothing has been applied yet; it is called from any goroutine.
func New(inspectors map[proxy.Family]proxy.Inspector, applied func(proxy.Family) *Applied) *Auditor {
	a := &Auditor{inspectors: inspectors, applied: applied, turn: make(chan struct{}, 1), pause: time.Second}
	a.turn <- struct{}{}
	return a
}

// Families are those that can be compared.
func (a *Auditor) Families() []proxy.Family {
	var list []proxy.Family
	for _, f := range proxy.Families {
		if a.inspectors[f] != nil {
			list = append(list, f)
		}
	}
	return list
}

// ErrNothingApplied says that there is nothing to compare the kernel with.
var ErrNothingApplied = errors.New("nothing has been applied yet")

// maxLooks is how often the kernel is looked at in one comparison.
const maxLooks = 4

// Compare lists how the kernel differs from what was applied in a family. What the dataplane changes meanwhile, or is about to, is
// no difference: only what is seen in look after look counts, and nothing of a Service that changed between the first look
// and the last.
func (a *Auditor) Compare(ctx context.Context, f proxy.Family) ([]proxy.Difference, error) {
	select {
	case <-a.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { a.turn <- struct{}{} }()
	first := a.applied(f)
	if first == nil {
		return nil, ErrNothingApplied
	}
	var seen []proxy.Difference
	for n := range maxLooks {
		before := a.applied(f)
		found, err := a.inspectors[f].Inspect(ctx, before.served())
		if err != nil {
			return nil, err
		}
		if n == 0 {
			seen = found
		} else {
			seen = both(seen, found)
		}
		after := a.applied(f).Snapshot
		seen = without(seen, changed(first.Snapshot, after))
		if len(seen) == 0 || n > 0 && before.Snapshot == after {
			break
		}
		if err := sleep(ctx, a.pause); err != nil {
			return nil, err
		}
	}
	return seen, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sign is what tells differences apart.
type sign struct {
	kind   proxy.DifferenceKind
	object string
}

// both are the differences of the newer list that the older one has, too.
func both(older, newer []proxy.Difference) []proxy.Difference {
	had := make(map[sign]bool, len(older))
	for _, x := range older {
		had[sign{x.Kind, x.Object}] = true
	}
	var list []proxy.Difference
	for _, x := range newer {
		if had[sign{x.Kind, x.Object}] {
			list = append(list, x)
		}
	}
	return list
}

// changed are the Services that are not the same in two snapshots.
func changed(first, last *proxy.Snapshot) map[string]bool {
	services := map[string]bool{}
	if first == last {
		return services
	}
	for name := range last.Changes(first) {
		services[name.Service().String()] = true
	}
	return services
}

// without leaves out what is of one of the Services.
func without(list []proxy.Difference, services map[string]bool) []proxy.Difference {
	if len(services) == 0 {
		return list
	}
	var left []proxy.Difference
	for _, x := range list {
		if !concerns(x, services) {
			left = append(left, x)
		}
	}
	return left
}

func concerns(x proxy.Difference, services map[string]bool) bool {
	for name := range strings.FieldsSeq(x.Service) {
		service, _, _ := strings.Cut(name, ":")
		if services[service] {
			return true
		}
	}
	return false
}
