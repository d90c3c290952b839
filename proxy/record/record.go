// Package record writes what a proxy serves, and why, to a file, and reads it back: for support, and for questions about a node that
// is not at hand. The form has a version; it is JSON, an object a line, so that writing takes no memory and a file can be searched.
package record

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/policy"
)

// Version is that of the form that Write writes. Read knows no other.
const Version = 1

// Record is what a proxy serves.
type Record struct {
	Taken   time.Time
	Program string // the version of Sluice
	Mode    string

	// Families has those of which something was applied, once each.
	Families []Family

	// Inputs are what is known of the Services, sorted by name.
	Inputs []policy.Input
}

// Family is what a proxy serves in an IP family.
type Family struct {
	Snapshot *proxy.Snapshot
	SetAside []proxy.SetAside // the errors keep their text alone
	Relay    bool             // a process serves NodePorts on the loopback address
}

// Write writes a record.
func Write(w io.Writer, r Record) error {
	buffered := bufio.NewWriter(w)
	e := json.NewEncoder(buffered)
	written := 0
	put := func(l line) error { written++; return e.Encode(l) }
	if err := put(line{Head: &headLine{Version, r.Taken, r.Program, r.Mode}}); err != nil {
		return err
	}
	for _, f := range r.Families {
		if err := writeFamily(put, f); err != nil {
			return err
		}
	}
	for _, in := range r.Inputs {
		if err := put(line{Input: inputLineOf(in)}); err != nil {
			return err
		}
	}
	if err := e.Encode(line{End: &written}); err != nil {
		return err
	}
	return buffered.Flush()
}

func writeFamily(put func(line) error, f Family) error {
	family := f.Snapshot.Family().String()
	if err := put(line{Family: family, Node: nodeLineOf(f.Snapshot.Node(), f.Relay)}); err != nil {
		return err
	}
	ports := make([]*proxy.ServicePort, 0, f.Snapshot.Len())
	for _, port := range f.Snapshot.All() {
		ports = append(ports, port)
	}
	slices.SortFunc(ports, func(a, b *proxy.ServicePort) int { return a.Name.Compare(b.Name) })
	for _, port := range ports {
		if err := put(line{Family: family, Port: portLineOf(port)}); err != nil {
			return err
		}
	}
	for _, a := range f.SetAside {
		if err := put(line{Family: family, SetAside: &asideLine{nameLineOf(a.Name), a.Err.Error()}}); err != nil {
			return err
		}
	}
	return nil
}

// Read reads a record. One that was cut off is an error.
func Read(from io.Reader) (Record, error) {
	d := json.NewDecoder(bufio.NewReader(from))
	var r reader
	for n := 0; ; n++ {
		var l line
		switch err := d.Decode(&l); {
		case err == io.EOF:
			return Record{}, errors.New("the record is cut off")
		case err != nil:
			return Record{}, fmt.Errorf("object %d of the record: %w", n+1, err)
		case l.End != nil && *l.End != n:
			return Record{}, fmt.Errorf("the record has %d objects, and not %d", n, *l.End)
		case l.End != nil:
			return r.record()
		}
		if err := r.take(n, l); err != nil {
			return Record{}, fmt.Errorf("object %d of the record: %w", n+1, err)
		}
	}
}

// reader collects what the lines say.
type reader struct {
	out      Record
	families [len(proxy.Families)]*half
}

// half is a family of which not all is read.
type half struct {
	Family
	node  *proxy.Node
	ports map[proxy.ServicePortName]*proxy.ServicePort
}

func (r *reader) take(n int, l line) error {
	switch {
	case n == 0 && l.Head == nil:
		return errors.New("it does not begin as one does")
	case n == 0 && l.Head.Version != Version:
		return fmt.Errorf("it has form %d, and this Sluice reads form %d", l.Head.Version, Version)
	case n == 0:
		r.out = Record{Taken: l.Head.Taken, Program: l.Head.Program, Mode: l.Head.Mode}
		return nil
	case l.Input != nil:
		in, err := l.Input.input()
		r.out.Inputs = append(r.out.Inputs, in)
		return err
	}
	f, err := parse(proxy.Families[:], l.Family)
	if err != nil {
		return fmt.Errorf("family: %w", err)
	}
	return r.takeOf(f, l)
}

func (r *reader) takeOf(f proxy.Family, l line) error {
	h := r.families[f]
	switch {
	case l.Node != nil && h == nil:
		node, err := l.Node.node(f)
		r.families[f] = &half{Family{Relay: l.Node.Relay}, node, map[proxy.ServicePortName]*proxy.ServicePort{}}
		return err
	case h == nil || l.Node != nil:
		return fmt.Errorf("%v has no node, or two", f)
	case l.Port != nil:
		port, err := l.Port.port()
		if err != nil {
			return err
		}
		h.ports[port.Name] = port
	case l.SetAside != nil:
		name, err := l.SetAside.name()
		if err != nil {
			return err
		}
		h.SetAside = append(h.SetAside, proxy.SetAside{Name: name, Err: errors.New(l.SetAside.Why)})
	}
	return nil // what a later version of this form adds is read over
}

func (r *reader) record() (Record, error) {
	for _, h := range r.families {
		if h != nil {
			h.Snapshot = proxy.NewSnapshot(h.node, h.ports)
			r.out.Families = append(r.out.Families, h.Family)
		}
	}
	if r.out.Mode == "" && r.out.Taken.IsZero() && r.out.Families == nil && r.out.Inputs == nil {
		return Record{}, errors.New("the record is empty")
	}
	return r.out, nil
}

// Of is a family of the record, nil if nothing was applied in it.
func (r Record) Of(f proxy.Family) *Family {
	i := slices.IndexFunc(r.Families, func(x Family) bool { return x.Snapshot.Family() == f })
	if i < 0 {
		return nil
	}
	return &r.Families[i]
}

// Input is what is known of a Service.
func (r Record) Input(name proxy.ServiceName) policy.Input {
	i, found := slices.BinarySearchFunc(r.Inputs, name, func(in policy.Input, n proxy.ServiceName) int { return compare(in.Name, n) })
	if !found {
		return policy.Input{Name: name}
	}
	return r.Inputs[i]
}

// SortInputs brings inputs into the order that a Record has them in.
func SortInputs(list []policy.Input) {
	slices.SortFunc(list, func(a, b policy.Input) int { return compare(a.Name, b.Name) })
}

func compare(a, b proxy.ServiceName) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}
