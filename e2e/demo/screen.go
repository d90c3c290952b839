package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sluice-proxy/sluice/e2e/load"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// The colours, as terminals take them.
const (
	bold  = "\x1b[1m"
	green = "\x1b[32m"
	plain = "\x1b[0m"
)

// screen writes for a reader; with colours if he sits at a terminal.
type screen struct {
	w        io.Writer
	coloured bool
	scenes   int
}

func newScreen(f *os.File) *screen {
	info, err := f.Stat()
	return &screen{w: f, coloured: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (s *screen) line(format string, args ...any) { fmt.Fprintf(s.w, format+"\n", args...) }

func (s *screen) painted(colour, format string, args ...any) {
	if s.coloured {
		format = colour + format + plain
	}
	s.line(format, args...)
}

// scene begins a numbered part.
func (s *screen) scene(format string, args ...any) {
	s.scenes++
	s.line("")
	s.painted(bold, "%d  %s", s.scenes, fmt.Sprintf(format, args...))
}

func (s *screen) good(format string, args ...any) { s.painted(green, format, args...) }

// counts is a line that says how many requests each pod got.
func (s *screen) counts(what string, c load.Counts, pods []*lab.Host) {
	var cells strings.Builder
	for _, pod := range pods {
		fmt.Fprintf(&cells, "%s %-5d  ", pod.Name, c.Answers[pod.Name])
	}
	s.line("     %-24s %s", what, strings.TrimRight(cells.String(), " "))
}

// lost is a line that says how many of the requests got no answer.
func (s *screen) lost(n, requests int) {
	say := s.line
	if n == 0 {
		say = s.good
	}
	say("     %-24s %d of %d requests", "lost", n, requests)
}

// bar shows n of most as a bar.
func bar(n, most int) string {
	const width = 30
	return strings.Repeat("█", n*width/max(most, 1))
}
