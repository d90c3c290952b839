package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/sluice-proxy/sluice/cmd/sluice/config"
	"github.com/sluice-proxy/sluice/proxy"
)

// pickyMode works or does not.
type pickyMode struct {
	proxy.Mode
	err error
}

// Supported implements proxy.Mode.
func (m pickyMode) Supported(context.Context, proxy.Family) error { return m.err }

func TestAutoTakesTheFirstModeThatWorksAndSaysWhy(t *testing.T) {
	offered := modes
	t.Cleanup(func() { modes = offered })
	no := func(what string) error { return errors.New(what + " is missing") }
	for _, test := range []struct {
		name  string
		lacks []error // of best, good and last
		want  string
		says  []string
	}{
		{"all work", []error{nil, nil, nil}, "best", []string{`mode="best"`, "preferred"}},
		{"one does not", []error{no("numgen"), nil, nil}, "good", []string{`mode="good"`, "best cannot work here: numgen is missing"}},
		{"two do not", []error{no("numgen"), no("ip_vs"), nil}, "last",
			[]string{`mode="last"`, "best cannot work here: numgen is missing; good cannot work here: ip_vs is missing"}},
		{"none does", []error{no("numgen"), no("ip_vs"), no("iptables")}, "last", []string{`mode="last"`, "numgen", "ip_vs"}},
	} {
		modes = nil
		for i, name := range []string{"best", "good", "last"} {
			modes = append(modes, mode{name: name, make: func(context.Context, ModeConfig) proxy.Mode { return pickyMode{err: test.lacks[i]} }})
		}
		var log bytes.Buffer
		ctx := klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log))))
		if got := chooseMode(ctx, config.Auto, ModeConfig{}).name; got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("%s: %d log lines, want one: %s", test.name, n, &log)
		}
		for _, part := range test.says {
			if !strings.Contains(log.String(), part) {
				t.Errorf("%s: the log says %s, and not %q", test.name, &log, part)
			}
		}
		log.Reset()
		if got := chooseMode(ctx, "good", ModeConfig{}).name; got != "good" || log.Len() > 0 {
			t.Errorf("%s: a mode that is named is %s, and the log says %q", test.name, got, &log)
		}
	}
}
