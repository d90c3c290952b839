// Package acct has the kernel's accounting objects (nfnetlink_acct, since Linux 3.3), in which rules of iptables count packets: the
// match nfacct names one. They are known by name alone, in the network namespace of the calling thread.
package acct

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrAbsent says that there is no object of that name.
var ErrAbsent = errors.New("no such accounting object")

// Messages and attributes of the kernel's linux/netfilter/nfnetlink_acct.h.
const (
	newObject    = 0
	getObject    = 1
	deleteObject = 3

	nameAttribute    = 1
	packetsAttribute = 2
	usersAttribute   = 4
)

// Make makes an object that has counted nothing, unless there is one. A kernel that has no such objects gives an error.
func Make(name string) error {
	_, err := ask(newObject, unix.NLM_F_CREATE, name)
	if err != nil && !errors.Is(err, unix.EBUSY) { // it is there
		return fmt.Errorf("make accounting object %s: %w", name, err)
	}
	return nil
}

// Packets is how many packets an object has counted since it was made. ErrAbsent is also what a kernel without such objects gives.
func Packets(name string) (uint64, error) { return read(name, packetsAttribute) }

// read is a number of an object.
func read(name string, attribute uint16) (uint64, error) {
	answers, err := ask(getObject, 0, name)
	if absent(err) {
		return 0, fmt.Errorf("%w: %s", ErrAbsent, name)
	}
	if err != nil {
		return 0, fmt.Errorf("read accounting object %s: %w", name, err)
	}
	for _, answer := range answers {
		if len(answer) < nl.SizeofNfgenmsg {
			continue
		}
		attributes, err := nl.ParseRouteAttr(answer[nl.SizeofNfgenmsg:])
		if err != nil {
			return 0, fmt.Errorf("read accounting object %s: %w", name, err)
		}
		for _, a := range attributes {
			if a.Attr.Type&nl.NLA_TYPE_MASK == attribute {
				return number(a.Value), nil
			}
		}
	}
	return 0, fmt.Errorf("read accounting object %s: the kernel's answer has no number", name)
}

// number reads one of any length.
func number(bigEndian []byte) (n uint64) {
	for _, b := range bigEndian {
		n = n<<8 | uint64(b)
	}
	return n
}

// Set is objects that are made and removed together, by their names.
type Set []string

// Make makes those that are not there.
func (s Set) Make() error { return s.each(Make) }

// Remove removes those that no rule uses, and gives an error for the others.
func (s Set) Remove() error { return s.each(Remove) }

// RemoveReleased removes them all once rules that used them have been deleted. It goes on after an error.
func (s Set) RemoveReleased(ctx context.Context) error {
	return s.each(func(name string) error { return RemoveReleased(ctx, name) })
}

func (s Set) each(f func(name string) error) error {
	var errs []error
	for _, name := range s {
		errs = append(errs, f(name))
	}
	return errors.Join(errs...)
}

// There are those of the set that are there. After an error it is what was found.
func (s Set) There() (all Set, err error) {
	err = s.each(func(name string) error {
		there, err := There(name)
		if there {
			all = append(all, name)
		}
		return err
	})
	return all, err
}

// Traces names what Remove removes, an object each.
func (s Set) Traces() ([]string, error) {
	found, err := s.There()
	var all []string
	for _, name := range found {
		all = append(all, "accounting object "+name)
	}
	return all, err
}

// There tells whether there is an object of that name.
func There(name string) (bool, error) {
	n, err := users(name)
	return n > 0, err
}

// Used tells whether rules count in an object. One that is not there is not used.
func Used(name string) (bool, error) {
	n, err := users(name)
	return n > 1, err
}

// users are those that hold an object: the kernel's list of them, and each rule that counts in it. One that is not there has none.
func users(name string) (uint64, error) {
	n, err := read(name, usersAttribute)
	if errors.Is(err, ErrAbsent) {
		return 0, nil
	}
	return n, err
}

// Remove removes an object, if it is there. One that rules use is refused.
func Remove(name string) error {
	if _, err := ask(deleteObject, 0, name); err != nil && !absent(err) {
		return fmt.Errorf("remove accounting object %s: %w", name, err)
	}
	return nil
}

const (
	released = 3 * time.Second // far more than the kernel takes
	tryPause = 20 * time.Millisecond
)

// RemoveReleased is Remove once rules that used the object have been deleted: nf_tables lets go of it only some time later.
func RemoveReleased(ctx context.Context, name string) error {
	for deadline := time.Now().Add(released); ; {
		err := Remove(name)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(tryPause):
		}
	}
}

// absent tells whether the kernel has no object of that name, or none at all.
func absent(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, errNone) }

var errNone = errors.New("the kernel has no accounting objects")

// none is set once the kernel has said that it has no accounting objects: it looks for the module each time that it is asked.
var none atomic.Bool

// ask waits for the kernel's acknowledgement: its answers look as if others followed.
func ask(message, flags int, name string) ([][]byte, error) {
	if none.Load() {
		return nil, errNone
	}
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_ACCT<<8|message, flags|unix.NLM_F_ACK)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: unix.NFNETLINK_V0})
	request.AddData(nl.NewRtAttr(nameAttribute, nl.ZeroTerminated(name)))
	answers, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	// Messages of an unknown kind are invalid, to a kernel without nfnetlink the protocol is unknown.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		none.Store(true)
		return nil, errNone
	}
	return answers, err
}
