package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	// askedServices is how many Services sluice explain is asked about, one after the other.
	askedServices = 100

	// askEvery is how long after one explain the next is asked beside a churn.
	askEvery = time.Second

	// timedOf is of how many changes in a churn one is timed. Were they a second apart, as proxies' syncs are, they would all be timed
	// at the same moment between two of those.
	timedOf = 7
)

// answers is what a trial found that asks the proxy. Questions are timed as whole commands.
type answers struct {
	explains []time.Duration
	intents  []time.Duration // explains that do not look into the kernel
	diffs    []time.Duration // beside a churn, one after the other

	quiet, asked       []time.Duration // from the API write until the new endpoint gets traffic, in a churn without and with questions
	quietCPU, askedCPU time.Duration   // the proxy's, of these churns
}

// questions are the steps of a trial in which the proxy is asked.
func (t *trial) questions(ctx context.Context, begin time.Time, r *result) []step {
	a := &r.answers
	return []step{
		{"start", func() error { return t.start(ctx, begin, r) }},
		{"explain", func() (err error) {
			a.explains, err = t.explains(ctx)
			return err
		}},
		{"intent", func() (err error) {
			a.intents, err = t.explains(ctx, "--intent-only")
			return err
		}},
		{"churn", func() (err error) {
			a.quietCPU, err = t.spent(ctx, func() (err error) {
				a.quiet, err = t.timedChurn(ctx)
				return err
			})
			return err
		}},
		{"asked", func() (err error) {
			a.askedCPU, err = t.spent(ctx, func() error { return t.askedChurn(ctx, a) })
			return err
		}},
	}
}

// explains asks about some Services, one after the other.
func (t *trial) explains(ctx context.Context, args ...string) ([]time.Duration, error) {
	var took []time.Duration
	for i := range askedServices {
		d, err := t.explain(ctx, i, args...)
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	return took, nil
}

// explain asks about a Service that has endpoints.
func (t *trial) explain(ctx context.Context, turn int, args ...string) (time.Duration, error) {
	service := t.cluster.services[t.cluster.turns[turn%len(t.cluster.turns)]]
	from, to := t.node.client().Addr(proxy.IPv4), at(service.vip, servicePort)
	return t.ask(ctx, append([]string{"explain", "--from", from.String(), "--to", to.String()}, args...)...)
}

// ask runs one of Sluice's commands on the node, and says how long it took. An exit code other than 0 is an error: the
// kernel, too, has to agree.
func (t *trial) ask(ctx context.Context, args ...string) (time.Duration, error) {
	var said bytes.Buffer
	command := exec.CommandContext(ctx, t.contender.path, args...)
	command.Stdout, command.Stderr = &said, &said
	begin := time.Now()
	err := t.node.Node.Start(command)
	if err == nil {
		err = command.Wait()
	}
	took := time.Since(begin)
	if err != nil {
		err = fmt.Errorf("sluice %s: %w\n%s", strings.Join(args, " "), err, said.Bytes()[:min(said.Len(), 4000)])
	}
	return took, err
}

// timedChurn makes changes for a while, and times some of them.
func (t *trial) timedChurn(ctx context.Context) ([]time.Duration, error) {
	changes := int(t.cfg.Churn.Seconds() * t.cfg.ChurnRate)
	return t.many(ctx, changes, t.cfg.ChurnRate, timedOf)
}

// askedChurn asks for differences all the time, and for an explanation now and then, while there are changes.
func (t *trial) askedChurn(ctx context.Context, a *answers) (err error) {
	var asking errgroup.Group
	ended := make(chan struct{})
	asking.Go(func() error {
		for !isClosed(ended) {
			took, err := t.ask(ctx, "diff")
			if err != nil {
				return err
			}
			a.diffs = append(a.diffs, took)
		}
		return nil
	})
	asking.Go(func() error {
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for turn := 0; ; turn++ {
			select {
			case <-ended:
				return nil
			case <-tick.C:
			}
			if _, err := t.explain(ctx, turn); err != nil {
				return err
			}
		}
	})
	a.asked, err = t.timedChurn(ctx)
	close(ended)
	return errors.Join(err, asking.Wait())
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
