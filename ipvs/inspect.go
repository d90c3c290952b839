package ipvs

import (
	"context"
	"fmt"

	"k8s.io/klog/v2"
	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// Inspect implements proxy.Inspector. It has another dataplane start which reads the kernel and whose writes go nowhere: what
// that one would mend is what differs.
func (d *dataplane) Inspect(ctx context.Context, want *proxy.Snapshot) ([]proxy.Difference, error) {
	table := nft.NewRunner(d.family, schema).Knowing(d.forms)
	state, err := table.Glance(ctx)
	if err != nil {
		return nil, err
	}
	servers, routes := newServersRead(d.servers), &routesRead{router: d.router}
	twin := newDataplane(d.cfg, d.family, tableRead{table, state}, servers, routes)
	twin.settings = func(context.Context) error { return nil }
	var edits []nft.Edit
	twin.observe = func(list []nft.Edit) { edits = append(edits, list...) }
	refused, err := twin.load(klog.NewContext(ctx, klog.Logger{}), want) // what it says it does, it does not do
	if err != nil {
		return nil, err
	}
	i := inspection{held: twin.held, state: state, servers: servers, sentinel: sentinelID(d.cfg)}
	i.table(edits)
	i.virtualServers(refused)
	for _, c := range d.unmet() {
		i.Add(proxy.Altered, c.File, fmt.Sprintf("%d instead of %d", c.Was, c.Value), "")
	}
	return append(i.List, routes.differences...), nil
}

// tableRead is a table as it was read, in which nothing is written.
type tableRead struct {
	nft.Interface
	state *nft.State
}

func (t tableRead) Read(context.Context) (*nft.State, error) { return t.state, nil }

func (t tableRead) Run(context.Context, *knftables.Transaction) error { return nil }

// serversRead are virtual servers that are read, and what would be done with them.
type serversRead struct {
	kernel.Servers
	found    map[kernel.ID]kernel.Server
	loads    map[kernel.ID][]kernel.Load
	commands []kernel.Command
}

func newServersRead(of kernel.Servers) *serversRead {
	return &serversRead{Servers: of, found: map[kernel.ID]kernel.Server{}, loads: map[kernel.ID][]kernel.Load{}}
}

func (s *serversRead) List(ctx context.Context) ([]kernel.Server, error) {
	all, err := s.Servers.List(ctx)
	for _, x := range all {
		s.found[x.ID] = x
	}
	return all, err
}

// Dests gives the same for a virtual server as it did before.
func (s *serversRead) Dests(ctx context.Context, ids []kernel.ID) (map[kernel.ID][]kernel.Load, error) {
	all := make(map[kernel.ID][]kernel.Load, len(ids))
	var unread []kernel.ID
	for _, id := range ids {
		if loads, read := s.loads[id]; read {
			all[id] = loads
		} else if _, there := s.found[id]; there {
			unread = append(unread, id)
		}
	}
	read, err := s.Servers.Dests(ctx, unread)
	for id, loads := range read {
		s.loads[id], all[id] = loads, loads
	}
	return all, err
}

func (s *serversRead) Run(_ context.Context, commands []kernel.Command) ([]*kernel.Error, error) {
	s.commands = append(s.commands, commands...)
	return nil, nil
}

// routesRead compares rules and routes.
type routesRead struct {
	router
	differences []proxy.Difference
}

func (r *routesRead) Apply(want kernel.Routes) (writes int, err error) {
	r.differences, err = r.Compare(want)
	return 0, err
}
