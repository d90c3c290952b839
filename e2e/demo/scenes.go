package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-proxy/sluice/e2e/load"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// clientIP is the address that the client uses where it needs just one.
func (s *stage) clientIP() netip.Addr { return s.Client.Addr(proxy.IPv4) }

func (s *stage) showNetwork(context.Context) error {
	s.screen.painted(bold, "Sluice in private network namespaces, mode %s. Nothing outside of them is touched.", s.mode)
	s.screen.line("")
	joints := []string{"┬", "├", "└"}
	for i, pod := range s.Pods {
		left := []string{
			fmt.Sprintf("client %v ─── node %v ──", s.clientIP(), lab.NodeIP),
			"                              with sluice",
			"",
		}[i]
		s.screen.line("   %-46s%s─ %s %v:%d", left, joints[i], pod.Name, pod.Addr(proxy.IPv4), podPort)
	}
	return nil
}

func (s *stage) showSpread(ctx context.Context) error {
	const requests = 600
	p := request(clusterIP, servicePort, s.clientIP())
	if err := s.await(ctx, "the Service is served", func() error { return answered(s.Client.Probe(p)) }); err != nil {
		return err
	}
	s.screen.scene("A Service in a YAML file, web at %v. %d requests by the client:", p.To, requests)
	c := load.Send(s.Client, p, requests)
	most := 0
	for _, n := range c.Answers {
		most = max(most, n)
	}
	for _, pod := range s.Pods {
		s.screen.line("     %s  %4d  %s", pod.Name, c.Answers[pod.Name], bar(c.Answers[pod.Name], most))
	}
	return errors.Join(noneLost(c), evenly(c, s.Pods))
}

// showServers shows what IPVS has to choose from.
func (s *stage) showServers() error {
	servers, err := s.Node.Run("ipvsadm", "-Ln")
	if err != nil {
		return err
	}
	s.screen.scene("The virtual servers that did it (FWM is one without backends: should it vanish, all others have)")
	for line := range strings.Lines(servers) {
		s.screen.line("     %s", strings.TrimRight(line, "\n"))
	}
	if !strings.Contains(servers, clusterIP.String()) {
		return errors.New("IPVS does not have the Service")
	}
	return nil
}

func (s *stage) showRules(context.Context) error {
	if s.mode == "ipvs" {
		return s.showServers()
	}
	if s.mode != "iptables" {
		return nil
	}
	rules, err := s.rules()
	if err != nil {
		return err
	}
	path := rules.walk(packet{
		source:   s.clientIP(),
		to:       netip.AddrPortFrom(clusterIP, servicePort),
		protocol: proxy.TCP,
	})
	s.screen.scene("The rules that did it: the packet's way through the nat table")
	for _, step := range path {
		s.screen.line("     %s", step)
	}
	if targets := strings.Count(strings.Join(path, "\n"), "-j DNAT"); targets == 0 {
		return errors.New("no rule on the packet's way translates it")
	}
	return nil
}

func (s *stage) showLeaving(ctx context.Context) error {
	leaving, staying := s.Pods[2], s.Pods[:2]
	s.screen.scene("%s leaves while requests keep coming: its line is deleted from the file", leaving.Name)
	l := load.Start(s.Client, request(clusterIP, servicePort, s.clientIP()))
	before, during, err := s.leave(ctx, l, leaving, staying)
	after := l.Stop()
	if err != nil {
		return err
	}
	s.screen.counts("before", before, s.Pods)
	s.screen.counts("while the file changes", during, s.Pods)
	s.screen.counts("after", after, s.Pods)
	lost := len(before.Failures) + len(during.Failures) + len(after.Failures)
	s.screen.lost(lost, before.Total()+during.Total()+after.Total())
	if n := after.Answers[leaving.Name]; n > 0 {
		return fmt.Errorf("%s still got %d requests", leaving.Name, n)
	}
	return errors.Join(noneLost(before), noneLost(during), noneLost(after), evenly(after, staying))
}

// leave takes a pod out of the file in the middle of a load. It returns the counts until then, and until
// the pod got nothing more; those after that are left in the load.
func (s *stage) leave(ctx context.Context, l *load.Load, leaving *lab.Host, staying []*lab.Host) (before, during load.Counts, err error) {
	const enough = 600
	busy := func() error { return s.await(ctx, "load", func() error { return atLeast(l.Total(), enough) }) }
	if err := busy(); err != nil {
		return before, during, err
	}
	before = l.Take()
	if err := s.write(web{backends: staying}); err != nil {
		return before, during, err
	}
	err = s.await(ctx, leaving.Name+" gets nothing more", func() error { return atLeast(l.Absent(leaving.Name), 100) })
	if err != nil {
		return before, during, err
	}
	during = l.Take()
	return before, during, busy()
}

func (s *stage) showNodePort(context.Context) error {
	const requests = 200
	p := request(lab.NodeIP, nodePort, s.clientIP())
	s.screen.scene("The same Service at the node's own address, NodePort %v. %d requests:", p.To, requests)
	c := load.Send(s.Client, p, requests)
	s.screen.counts("requests", c, s.Pods)
	return errors.Join(noneLost(c), evenly(c, s.Pods[:2]))
}

func (s *stage) showAffinity(ctx context.Context) error {
	const requests = 50
	if err := s.write(web{backends: s.Pods, affinity: true}); err != nil {
		return err
	}
	s.screen.scene("sessionAffinity: ClientIP is added to the file, and %s is back. %d requests each:", s.Pods[2].Name, requests)
	p := request(clusterIP, servicePort, s.clientIP())
	err := s.await(ctx, "affinity", func() error { return stays(load.Send(s.Client, p, 20)) })
	if err != nil {
		return err
	}
	var errs []error
	for _, client := range s.Client.Addrs(proxy.IPv4) {
		c := load.Send(s.Client, request(clusterIP, servicePort, client), requests)
		s.screen.counts("client "+client.String(), c, s.Pods)
		errs = append(errs, noneLost(c), stays(c))
	}
	return errors.Join(errs...)
}

func (s *stage) showEnd(context.Context) error {
	const requests = 200
	s.screen.scene("sluice is stopped: its rules stay and serve, until `sluice cleanup`")
	if err := s.stop(); err != nil {
		return err
	}
	c := load.Send(s.Client, request(clusterIP, servicePort, s.clientIP()), requests)
	s.screen.lost(len(c.Failures), requests)
	if out, err := s.Node.Run(s.sluice, "cleanup"); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	left, err := s.traces()
	if err != nil {
		return err
	}
	s.screen.line("     %-24s %d", "rules left", len(left))
	if len(left) > 0 {
		return fmt.Errorf("cleanup left %q", left)
	}
	if o := s.Client.Probe(request(clusterIP, servicePort, s.clientIP())); o.Result == lab.Answered {
		return fmt.Errorf("after cleanup the Service is still %v", o)
	}
	return noneLost(c)
}

func answered(o lab.Outcome) error {
	if o.Result != lab.Answered {
		return fmt.Errorf("%v", o)
	}
	return nil
}

func atLeast(n, want int) error {
	if n < want {
		return fmt.Errorf("%d, want %d", n, want)
	}
	return nil
}

func noneLost(c load.Counts) error {
	if len(c.Failures) > 0 {
		return fmt.Errorf("requests were lost: %v", c)
	}
	return nil
}

// evenly checks that each pod got more than half of its fair share: with hundreds of requests,
// chance alone does not make it fail.
func evenly(c load.Counts, pods []*lab.Host) error {
	for _, pod := range pods {
		if n := c.Answers[pod.Name]; n*2*len(pods) < c.Total() {
			return fmt.Errorf("%s got %d of %d requests", pod.Name, n, c.Total())
		}
	}
	return nil
}

// stays checks that one server answered everything.
func stays(c load.Counts) error {
	if len(c.Answers) != 1 {
		return fmt.Errorf("one client was sent to %d servers: %v", len(c.Answers), c)
	}
	return nil
}
