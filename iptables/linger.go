package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/klog/v2"
)

// lingering names, by table, the chains that are empty and wait for their deletion.
type lingering map[string][]string

// note takes account of a section that was restored.
func (l lingering) note(s *section, kept bool) {
	left := slices.DeleteFunc(l[s.table], func(name string) bool { return s.seen[name] })
	if kept {
		left = append(left, s.gone...)
	}
	l[s.table] = left
}

// sweep deletes what lingers, but for chains to which rules of others lead: these stay, empty.
func (d *dataplane) sweep(ctx context.Context) error {
	for _, table := range []string{nat, filter} {
		left, err := d.sweepSome(ctx, table, d.linger[table])
		if err != nil {
			return err
		}
		for _, name := range left {
			klog.FromContext(ctx).Info("Left an empty chain that another program's rules lead to", "table", table, "chain", name)
		}
		d.linger[table] = nil
	}
	return nil
}

// sweepSome gives the names that could not be deleted.
func (d *dataplane) sweepSome(ctx context.Context, table string, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	err := d.unlink(ctx, table, names)
	if _, refused := errors.AsType[*refusal](err); !refused {
		return nil, err
	}
	if len(names) > 1 {
		half := len(names) / 2
		left, err := d.sweepSome(ctx, table, names[:half])
		if err != nil {
			return nil, err
		}
		more, err := d.sweepSome(ctx, table, names[half:])
		return append(left, more...), err
	}
	// Another release of ours may have led packets to it.
	if err := d.ipt.RemoveJumps(ctx, names[0]); err != nil {
		return nil, fmt.Errorf("lead packets past %s: %w", names[0], err)
	}
	d.jumps = nil
	err = d.unlink(ctx, table, names)
	if _, refused := errors.AsType[*refusal](err); refused {
		return names, nil
	}
	return nil, err
}

// unlink deletes chains that lingered.
func (d *dataplane) unlink(ctx context.Context, table string, names []string) error {
	s := newSection(table)
	for _, name := range names {
		s.remove(name)
	}
	input := plan{s}.input(how{})
	if err := d.ipt.Restore(ctx, input); err != nil {
		return refusalOf(err, input)
	}
	return nil
}
