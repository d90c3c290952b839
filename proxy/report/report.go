// Package report tells people, by log and by Event, which Services a node cannot serve as asked, once when
// that begins and once when it ends. What to do about it is theirs.
package report

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
)

// Event is something that the readers of an object's Events should know. All fields are required.
type Event struct {
	Warning bool // a person should do something
	Reason  string
	Action  string
	Note    string
}

// EventFunc records an Event that regards a Service. It does not block.
type EventFunc func(service proxy.ServiceName, e Event)

// Reporter remembers what it has reported. It is safe for concurrent use.
type Reporter struct {
	event EventFunc

	mu       sync.Mutex
	setAside [len(proxy.Families)]map[proxy.ServicePortName]bool
	lost     [len(proxy.Families)]map[loss]bool
}

// loss is a frontend that a ServicePort does not get.
type loss struct {
	frontend     proxy.FrontendKey
	owner, loser proxy.ServicePortName
}

// New makes a Reporter.
func New(event EventFunc) *Reporter { return &Reporter{event: event} }

// SetAside says which ServicePorts the kernel refuses now.
func (r *Reporter) SetAside(ctx context.Context, f proxy.Family, list []proxy.SetAside) {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := klog.FromContext(ctx)
	was, now := r.setAside[f], make(map[proxy.ServicePortName]bool, len(list))
	for _, s := range list {
		now[s.Name] = true
		if was[s.Name] {
			continue
		}
		log.Error(s.Err, "Service port not served, the kernel refuses it", "servicePort", s.Name, "protocol", s.Name.Protocol)
		r.event(s.Name.Service(), Event{
			Warning: true, Reason: "NotServed", Action: "Apply",
			Note: fmt.Sprintf("port %s is not served for %v on this node: %v", portName(s.Name), f, s.Err),
		})
	}
	for name := range was {
		if !now[name] {
			log.Info("Service port is no longer set aside", "servicePort", name, "protocol", name.Protocol)
		}
	}
	r.setAside[f] = now
}

// Contested says which frontends several ServicePorts claim now.
func (r *Reporter) Contested(ctx context.Context, f proxy.Family, conflicts []desired.Conflict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, now := r.lost[f], map[loss]bool{}
	for _, c := range conflicts {
		for _, loser := range c.Losers {
			l := loss{c.Frontend, c.Owner, loser}
			now[l] = true
			if !was[l] {
				r.reportLoss(ctx, l)
			}
		}
	}
	for l := range was {
		if !now[l] {
			klog.FromContext(ctx).Info("Service port no longer loses an address to another", "servicePort", l.loser,
				"address", l.frontend.Addr, "protocol", l.frontend.Protocol)
		}
	}
	r.lost[f] = now
}

func (r *Reporter) reportLoss(ctx context.Context, l loss) {
	klog.FromContext(ctx).Info("Several Services claim an address, only one of them gets it",
		"address", l.frontend.Addr, "protocol", l.frontend.Protocol, "served", l.owner, "notServed", l.loser)
	r.event(l.loser.Service(), Event{
		Warning: true, Reason: "AddressConflict", Action: "Apply",
		Note: fmt.Sprintf("%v (%v) is not served for port %s: Service %v had it first", l.frontend.Addr, l.frontend.Protocol, portName(l.loser), l.owner.Service()),
	})
}

// portName is what a reader of Events calls the port.
func portName(name proxy.ServicePortName) string {
	if name.Port == "" {
		return "(" + name.Protocol.String() + ")"
	}
	return name.Port
}
