package audit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
)

// share is which part of the time may be spent on comparisons: where one takes long, they are rarer.
const share = 200

// Round is a comparison that nobody asked for.
type Round struct {
	Family proxy.Family
	Found  []proxy.Difference
	Err    error
	Took   time.Duration
}

// Rounds compares a family every so often until ctx ends, and tells of each time. No two nodes of a cluster do it in step.
func (a *Auditor) Rounds(ctx context.Context, f proxy.Family, every time.Duration, tell func(Round)) {
	for pause := spread(every); sleep(ctx, pause) == nil; {
		began := time.Now()
		found, err := a.Compare(ctx, f)
		r := Round{Family: f, Found: found, Err: err, Took: time.Since(began)}
		if ctx.Err() == nil && !errors.Is(err, ErrNothingApplied) {
			tell(r)
		}
		pause = spread(max(every, share*r.Took))
	}
}

// spread is a time, more or less.
func spread(d time.Duration) time.Duration {
	return d - d/10 + time.Duration(rand.Int64N(int64(d/5)+1))
}

// maxNames is how many differences a text names.
const maxNames = 5

// Text names some differences in a line.
func Text(list []proxy.Difference) string {
	var names []string
	for _, x := range list[:min(maxNames, len(list))] {
		name := fmt.Sprintf("%v %s", x.Kind, x.Object)
		if x.Service != "" {
			name += " of " + x.Service
		}
		if x.Detail != "" {
			name += " (" + x.Detail + ")"
		}
		names = append(names, name)
	}
	text := strings.Join(names, "; ")
	if more := len(list) - len(names); more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}
