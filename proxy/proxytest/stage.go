package proxytest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/sluice-proxy/sluice/conntrack"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/desired"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
	"github.com/sluice-proxy/sluice/proxy/relay"
	"github.com/sluice-proxy/sluice/proxy/track"
)

// reporter is the part of testing.TB that a scenario needs.
type reporter interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Log(args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
}

// stage is where a scenario is played.
type stage struct {
	*Harness
	t         reporter
	lab       *lab.Lab
	neighbour Neighbour
	family    proxy.Family
	scenario  Scenario
	local     []localAddr

	objects map[string]runtime.Object // by kind, namespace and name
	process
	open map[string]*open
}

// localAddr is an address that the scenario gave the node.
type localAddr struct {
	addr   netip.Addr
	remove func() error
}

// process is what a new process starts without.
type process struct {
	tracker   *track.Tracker
	builder   *desired.Builder
	dataplane proxy.Dataplane
	cleaner   *conntrack.Cleaner
	relay     *relay.Relay // nil: nothing is relayed
	applied   *proxy.Snapshot
}

// open is a connection that has a name.
type open struct {
	conn *lab.Conn
	last lab.Outcome
}

// play plays a scenario and leaves the node as it was, but for what an empty snapshot puts there.
func (h *Harness) play(t reporter, at *site, j job) {
	s := &stage{Harness: h, t: t, lab: at.Lab, neighbour: at.neighbour, family: j.family, scenario: j.scenario,
		objects: map[string]runtime.Object{}, open: map[string]*open{}}
	s.prepare()
	for i, step := range j.scenario.Steps {
		if t.Failed() {
			return
		}
		s.step(i, step)
	}
	s.end()
}

// must fails the test at once.
func (s *stage) must(what string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// onNode runs f inside the node's namespace.
func (s *stage) onNode(what string, f func() error) {
	s.t.Helper()
	s.must(what, s.lab.Node.Do(f))
}

func (s *stage) prepare() {
	s.t.Cleanup(s.dump)
	s.t.Cleanup(func() {
		for _, o := range s.open {
			o.conn.Close()
		}
	})
	if s.Forget != nil {
		s.onNode("forget connections", s.Forget)
	}
	s.must("forget flows", s.lab.Node.FlushFlows())
	s.t.Cleanup(func() { s.setLocal(nil) })
	s.setLocal(s.scenario.Local)
	if s.scenario.Firewall {
		s.onNode("set firewall", func() error { return s.Firewall(s.family, true) })
		s.t.Cleanup(func() { s.onNode("unset firewall", func() error { return s.Firewall(s.family, false) }) })
	}
	s.start(s.scenario.Node)
	s.t.Cleanup(s.stop)
}

// setLocal replaces the addresses that the node has besides those of the lab.
func (s *stage) setLocal(texts []string) {
	s.t.Helper()
	for _, l := range s.local {
		s.must("remove local address", l.remove())
	}
	s.local = nil
	for _, text := range texts {
		a := lab.In(s.family, netip.MustParseAddr(text))
		remove, err := s.lab.Node.AddLoopback(a)
		s.must("add local address", err)
		s.local = append(s.local, localAddr{a, remove})
	}
}

// nodeHas tells whether an address is the node's in the scenario.
func (s *stage) nodeHas(a netip.Addr) bool {
	return slices.Contains(s.lab.Node.Addrs(s.family), a) ||
		slices.ContainsFunc(s.local, func(l localAddr) bool { return l.addr == a })
}

// nodeWasGiven tells whether the node has an address by a neighbour: kube-proxy's mode ipvs gives it all VIPs, and in IPv6 the kernel
// takes one of them for packets to a pod behind an interface without a global address.
func (s *stage) nodeWasGiven(a netip.Addr) (given bool) {
	if s.neighbour == nil {
		return false
	}
	s.onNode("list addresses", func() error {
		all, err := net.InterfaceAddrs()
		given = slices.ContainsFunc(all, func(x net.Addr) bool {
			p, err := netip.ParsePrefix(x.String())
			return err == nil && p.Addr() == a
		})
		return err
	})
	return given
}

func (s *stage) dump() {
	if !s.t.Failed() || s.Dump == nil {
		return
	}
	s.onNode("dump", func() error { s.t.Log(s.Dump(s.family)); return nil })
}

// start makes a process that knows the objects of the scenario so far.
func (s *stage) start(node Node) {
	tracker := track.New(track.Config{ExternalIPs: !s.scenario.NoExternalIPs, Logger: s.logger()})
	var dataplane proxy.Dataplane
	s.onNode("make dataplane", func() (err error) {
		dataplane, err = s.Mode.New(s.family)
		return err
	})
	s.stop()
	s.process = process{
		tracker:   tracker,
		builder:   desired.NewBuilder(s.nodeFacts(node)),
		dataplane: dataplane,
		cleaner:   conntrack.NewCleaner(&conntrack.Kernel{}),
	}
	if s.Relayed {
		s.relay = relay.New(relay.Config{Listen: s.lab.Node.ListenBeside, Dial: s.lab.Node.DialContext, AsNode: true})
	}
	for _, o := range s.objects {
		s.set(o)
	}
}

// stop ends what would end with the process.
func (s *stage) stop() {
	if s.relay != nil {
		s.relay.Close()
	}
}

// logger writes to the test's log, which is shown if it fails.
func (s *stage) logger() klog.Logger {
	return textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(logWriter{s.t})))
}

type logWriter struct{ reporter }

func (w logWriter) Write(line []byte) (int, error) {
	w.Log(strings.TrimSpace(string(line)))
	return len(line), nil
}

func (s *stage) step(i int, step Step) {
	s.t.Helper()
	name := step.Name
	if name == "" {
		name = fmt.Sprintf("step %d", i+1)
	}
	if step.Restart {
		s.start(s.scenario.Node)
	}
	if step.Node != nil {
		s.scenario.Node = *step.Node
	}
	if step.Local != nil {
		s.setLocal(step.Local)
	}
	if step.Node != nil || step.Local != nil {
		s.builder.SetNode(s.nodeFacts(s.scenario.Node))
	}
	for _, o := range step.Set {
		s.remember(o)
		s.set(o)
	}
	for _, o := range step.Delete {
		delete(s.objects, key(o))
		s.unset(o)
	}
	s.follow(name, i)
	if i == len(s.scenario.Steps)-1 { // more often would cost too much
		s.inspect(name, s.applied)
	}
	packets, err := parsePackets(s.family, step.Packets)
	s.must(name, err)
	if step.Random != nil {
		packets = append(packets, s.random(step.Random)...)
	}
	s.send(name, slices.DeleteFunc(packets, func(p packet) bool { return s.excepts(s.scenario.Name, p) }))
}

// follow brings the objects into the kernel, for the i-th step.
func (s *stage) follow(step string, i int) {
	s.t.Helper()
	first := (i+int(s.family))%2 == 0
	if first {
		s.neighbourFollows(step)
	}
	s.apply(step)
	if !first {
		s.neighbourFollows(step)
	}
}

// apply has the mode bring the objects into the kernel, and does it again, which must not write anything.
func (s *stage) apply(step string) {
	s.t.Helper()
	s.builder.Update(s.tracker.Take().Inputs)
	want := s.builder.Snapshot()
	ctx := klog.NewContext(s.t.Context(), s.logger())
	s.onNode(step+": apply", func() error {
		report, err := s.dataplane.Apply(ctx, want)
		if err == nil && len(report.SetAside) > 0 {
			err = fmt.Errorf("%v was set aside: %w", report.SetAside[0].Name, report.SetAside[0].Err)
		}
		return err
	})
	s.onNode(step+": clean flows", func() error {
		_, err := s.cleaner.Applied(ctx, s.applied, want)
		return err
	})
	s.applied = want
	if s.relay != nil {
		s.relay.Applied(ctx, want)
	}
	s.onNode(step+": apply again", func() error {
		report, err := s.dataplane.Apply(ctx, want)
		for _, table := range report.Tables {
			if table.Writes != 0 {
				err = fmt.Errorf("%d writes to %s", table.Writes, table.Table)
			}
		}
		return err
	})
}

// inspect has the mode compare the kernel with what it applied, as it is after all that the scenario did. Beside another proxy, which may put its rules first, the two may differ.
func (s *stage) inspect(step string, want *proxy.Snapshot) {
	s.t.Helper()
	inspector, ok := s.dataplane.(proxy.Inspector)
	if !ok || s.neighbour != nil {
		return
	}
	s.onNode(step+": inspect", func() error {
		found, err := inspector.Inspect(s.t.Context(), want)
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%d differences, such as: %v %s of %s (%s)", len(found), found[0].Kind, found[0].Object, found[0].Service, found[0].Detail)
		}
		return err
	})
	if shower, ok := inspector.(proxy.Shower); ok && want.Len() > 0 {
		s.onNode(step+": show", func() error { return s.shown(shower, want) })
	}
}

// shown has the mode show what implements one of the ServicePorts: all of it must be as it should be.
func (s *stage) shown(shower proxy.Shower, want *proxy.Snapshot) error {
	for name, port := range want.All() { // any one: all cost too much
		objects, err := shower.Show(s.t.Context(), want, port, port.Frontends)
		if err == nil && len(objects) == 0 {
			err = errors.New("nothing is shown")
		}
		for _, o := range objects {
			if o.Differs != nil && err == nil {
				err = fmt.Errorf("%v %s (%s)", o.Differs.Kind, o.Name, o.Differs.Detail)
			}
		}
		if err != nil {
			return fmt.Errorf("%v: %w", name, err)
		}
		break
	}
	return nil
}

// end removes all objects: nothing of them may be left.
func (s *stage) end() {
	s.t.Helper()
	for _, o := range s.objects {
		s.unset(o)
	}
	clear(s.objects)
	s.follow("delete all objects", len(s.scenario.Steps))
	s.inspect("delete all objects", s.applied)
	if n := s.applied.Len(); n != 0 {
		s.t.Errorf("%d ServicePorts are left after all objects are deleted", n)
	}
}

func key(o runtime.Object) string {
	switch o := o.(type) {
	case *corev1.Service:
		return "Service " + o.Namespace + "/" + o.Name
	case *discoveryv1.EndpointSlice:
		return "EndpointSlice " + o.Namespace + "/" + o.Name
	}
	panic(fmt.Sprintf("scenarios have no objects of type %T", o))
}

func (s *stage) remember(o runtime.Object) {
	s.t.Helper()
	s.objects[key(o)] = o
	s.must("serve", s.serve(o))
}

func (s *stage) set(o runtime.Object) {
	switch o := o.(type) {
	case *corev1.Service:
		s.tracker.SetService(serviceIn(s.family, o))
	case *discoveryv1.EndpointSlice:
		s.tracker.SetEndpointSlice(endpointSliceIn(s.family, o))
	}
}

func (s *stage) unset(o runtime.Object) {
	switch o := o.(type) {
	case *corev1.Service:
		s.tracker.DeleteService(proxy.ServiceName{Namespace: o.Namespace, Name: o.Name})
	case *discoveryv1.EndpointSlice:
		s.tracker.DeleteEndpointSlice(o.Namespace, o.Name)
	}
}
