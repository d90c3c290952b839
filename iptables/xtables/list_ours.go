package xtables

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// List writes the lines of a table, as iptables-save has them, that speak of our chains or of the chain for marking, with counters. It
// does not bring a table into being.
func (r *Runner) List(ctx context.Context, table string, w io.Writer) error {
	limited, cancel := r.limit(ctx)
	defer cancel()
	if there, err := r.tools.holds(r.family, table); err != nil || !there {
		return err
	}
	if _, err := fmt.Fprintf(w, "# %v, table %s\n", r, table); err != nil {
		return err
	}
	return r.tools.stream(limited, table, func(saved io.Reader) error {
		for lines := bufio.NewReader(saved); ; {
			line, err := lines.ReadString('\n')
			if strings.Contains(line, r.cfg.Prefix) || strings.Contains(line, SharedChain) {
				if _, err := io.WriteString(w, line); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}, "-c")
}
