package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Exists tells whether the kernel has the table. One without nf_tables has none.
func (r *Runner) Exists() (bool, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for table %s: %w", r.table, err)
	}
	defer func() { _ = c.Close() }()
	reader := &reader{Conn: c, family: r.family, name: r.table}
	_, err = reader.table()
	if errors.Is(err, unix.ENOENT) || isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for table %s: %w", r.table, err)
	}
	return true, nil
}

// Find is Read of a table that may not be there, in a kernel that may have no nf_tables.
func (r *Runner) Find(ctx context.Context) (*State, error) {
	if there, err := r.Exists(); err != nil || !there {
		return nil, err
	}
	return r.Read(ctx)
}

// String names the table as nft does.
func (r *Runner) String() string { return fmt.Sprintf("table %s %s", Family(r.family), r.table) }

// Traces names those tables that the kernel has.
func Traces(tables []*Runner) ([]string, error) {
	var all []string
	var errs []error
	for _, t := range tables {
		there, err := t.Exists()
		if there {
			all = append(all, "nftables: "+t.String())
		}
		errs = append(errs, err)
	}
	return all, errors.Join(errs...)
}

// RemoveAll deletes those tables that are there.
func RemoveAll(ctx context.Context, tables []*Runner) error {
	var errs []error
	for _, t := range tables {
		if err := t.Remove(ctx); err != nil {
			errs = append(errs, fmt.Errorf("remove %v: %w", t, err))
		}
	}
	return errors.Join(errs...)
}
