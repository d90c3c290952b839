package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const (
	// patience is for what must come, even if kube-proxy needs minutes; on an emulated processor a dozen of them.
	patience = 30 * time.Minute

	startPace  = 5 * time.Millisecond // between looks at a start: of them there are many
	changePace = time.Millisecond

	// fineness is the part of what was waited that the next look may be late. Whoever takes long is not slowed down by being
	// looked at more often than that.
	fineness = 200

	// probeLimit is longer than an answer takes; a lost packet is sent again only after a second.
	probeLimit = 250 * time.Millisecond
)

// trial is one proxy with one backend, on a node of its own.
type trial struct {
	cfg       config
	contender contender
	backend   string
	cluster   *cluster
	node      *node
	base      *node
	say       func(format string, args ...any)

	log   *os.File
	proxy *process.Process
}

// result is what a trial found.
type result struct {
	proxy string

	first    time.Duration // from the start of the process until the Service default/kubernetes takes connections
	served   time.Duration // from the start of the process until all Services with endpoints answer
	refused  time.Duration // and until those without endpoints refuse
	startCPU time.Duration

	changes    []time.Duration // from the API write until the new endpoint gets traffic
	writes     []time.Duration // what the API server needed of that
	changesCPU time.Duration
	batchCPU   time.Duration
	churnCPU   time.Duration
	idleCPU    time.Duration

	peak      int64 // memory of the proxy, in bytes
	childPeak int64 // the most demanding child's

	repair time.Duration // from the loss of all rules until all Services answer again; 0: not within repairLimit

	connects connects

	answers answers // of a trial that asks, which has nothing else but the start
}

// run measures everything. The directory is the trial's own.
func (t *trial) run(ctx context.Context, dir string) (r result, err error) {
	r = result{proxy: t.contender.name}
	programs := filepath.Join(dir, "tools")
	if err := makeTools(programs, tools(t.backend)); err != nil {
		return r, err
	}
	if t.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.log.Close()) }()
	if t.node, err = newNode(t.cluster.ns); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, t.node.close()) }()

	begin := time.Now()
	if t.proxy, err = t.contender.start(t.node, t.cluster, programs, t.log); err != nil {
		return r, err
	}
	children := startCensus(t.proxy.PID(), filepath.Base(t.contender.path))
	err = t.measure(ctx, begin, &r)
	r.childPeak = children.end()
	t.stop()
	if err == nil && !t.cfg.Asked {
		// The proxy has ended, its rules are there: nothing else happens to the machine.
		r.connects, err = t.connect(ctx)
	}
	if err != nil {
		err = fmt.Errorf("%s, %s, %s: %w\n%s", r.proxy, t.backend, t.cluster.load.title(), err, t.said())
	}
	return r, err
}

// measure measures all that needs a running proxy.
func (t *trial) measure(ctx context.Context, begin time.Time, r *result) error {
	for _, step := range t.steps(ctx, begin, r) {
		started := time.Now()
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		t.say("    %-8s %6.1f s", step.name, time.Since(started).Seconds())
	}
	return nil
}

// step measures something.
type step struct {
	name string
	do   func() error
}

func (t *trial) steps(ctx context.Context, begin time.Time, r *result) []step {
	if t.cfg.Asked {
		return t.questions(ctx, begin, r)
	}
	all := []step{
		{"start", func() error { return t.start(ctx, begin, r) }},
		{"changes", func() error { return t.timeChanges(ctx, r) }},
	}
	if t.cfg.Mode.slow {
		all = append(all, step{"idle", func() (err error) {
			r.idleCPU, err = t.idle(ctx)
			return err
		}})
	} else {
		all = append(all, step{"batch", func() (err error) {
			r.batchCPU, err = t.series(ctx, t.cfg.Batch, t.cfg.BatchRate)
			return err
		}}, step{"churn", func() (err error) {
			r.churnCPU, err = t.series(ctx, int(t.cfg.Churn.Seconds()*t.cfg.ChurnRate), t.cfg.ChurnRate)
			return err
		}})
	}
	return append(all, step{"memory", func() error {
		s, err := readStatus(t.proxy.PID())
		r.peak = s.peak
		return err
	}}, step{"repair", func() error { return t.timeRepair(ctx, r) }})
}

// start waits until Services all over the cluster are served.
func (t *trial) start(ctx context.Context, begin time.Time, r *result) (err error) {
	if err := t.awaitAPI(ctx); err != nil {
		return err
	}
	r.first = time.Since(begin)
	for _, to := range t.probes() {
		if err := t.await(ctx, to, startPace, answered); err != nil {
			return err
		}
	}
	r.served = time.Since(begin)
	for i, s := range t.cluster.services {
		if !hasEndpoints(i) {
			if err := t.await(ctx, at(s.vip, servicePort), startPace, refused); err != nil {
				return err
			}
			break
		}
	}
	r.refused = time.Since(begin)
	if r.startCPU, err = cpu(t.proxy.PID()); err != nil {
		return err
	}
	return t.calm(ctx)
}

// probes are the first Service by name, the last one, some in between, and both ends of the shared address.
func (t *trial) probes() []netip.AddrPort {
	const parts = 8
	last := len(t.cluster.services) - 1
	list := []netip.AddrPort{
		at(sharedIP, firstSharedPort),
		at(sharedIP, uint16(firstSharedPort+t.cfg.SharedPorts-1)),
		at(t.cluster.shared.vip, uint16(firstSharedPort+t.cfg.SharedPorts-1)),
	}
	for i := range parts + 1 {
		index := last * i / parts
		if !hasEndpoints(index) {
			index++
		}
		list = append(list, at(t.cluster.services[index].vip, servicePort))
	}
	return list
}

// awaitAPI connects from the node to the API server's ClusterIP, again and again until it can.
func (t *trial) awaitAPI(ctx context.Context) error {
	return t.again(ctx, startPace, func() (bool, error) {
		err := t.node.Node.Do(func() error {
			_, err := connectOnce(&unix.SockaddrInet4{Port: apiPort, Addr: apiVIP.As4()}, probeLimit)
			return err
		})
		return err == nil, err
	})
}

func answered(o lab.Outcome) bool { return o.Result == lab.Answered }
func refused(o lab.Outcome) bool  { return o.Result == lab.Refused }

// await connects again and again until an outcome is as wanted.
func (t *trial) await(ctx context.Context, to netip.AddrPort, pace time.Duration, want func(lab.Outcome) bool) error {
	return t.again(ctx, pace, func() (bool, error) {
		o := t.node.client().Probe(lab.Probe{To: to, Protocol: proxy.TCP, Timeout: probeLimit})
		return want(o), fmt.Errorf("%v: %v", to, o)
	})
}

// again tries something until it succeeds, or the proxy ends. A try says why it did not.
func (t *trial) again(ctx context.Context, pace time.Duration, try func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := time.Now()
	for {
		ok, why := try()
		if ok {
			return nil
		}
		select {
		case <-time.After(max(pace, time.Since(begin)/fineness)):
		case <-t.proxy.Done():
			return fmt.Errorf("%s has ended: %w", t.contender.name, cmp.Or(t.proxy.Err(), errEnded))
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", why, context.Cause(ctx))
		}
	}
}

var errEnded = errors.New("exit code 0")

// stop ends the proxy, which leaves its rules. How it takes a signal is its own affair.
func (t *trial) stop() { _ = t.proxy.Stop() }

// said is the end of the proxy's log.
func (t *trial) said() []byte {
	text, err := os.ReadFile(t.log.Name())
	if err != nil {
		return []byte(err.Error())
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-20):], nil)
}

// connect times connections through the rules that the proxy left, in turns with the base line.
func (t *trial) connect(ctx context.Context) (connects, error) {
	order, err := t.contender.order(t.node, t.backend, t.cluster.services)
	if err != nil {
		return connects{}, err
	}
	if len(order) == 0 {
		return connects{}, errors.New("no rule names a service")
	}
	client, base := t.node.client(), t.base.client()
	return timeConnects(ctx, [numTargets]target{
		viaFirst: {client, at(order[0], servicePort)},
		viaLast:  {client, at(order[len(order)-1], servicePort)},
		toPod:    {client, at(straight, targetPort)},
		basePath: {base, at(baseVIP, servicePort)},
		basePod:  {base, at(straight, targetPort)},
	}, t.cfg.Connects)
}
