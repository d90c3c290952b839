package proxy

import "context"

// Shower is a Dataplane that can show the objects in the kernel that implement a ServicePort.
type Shower interface {
	// Show lists the objects by which some frontends of a ServicePort in want are served or refused, each compared with what it
	// should be: the most telling ones first. It reads these objects and not all that there is, where the kernel allows that.
	// It writes nothing, may run beside all other methods, and holds none of them up; so what they change meanwhile may be
	// taken for a difference.
	Show(ctx context.Context, want *Snapshot, port *ServicePort, frontends []Frontend) ([]Object, error)
}

// Object is something in the kernel that implements a ServicePort.
type Object struct {
	// Name is the object in the words of the tool that shows it.
	Name string

	// Holds is what is in it, as far as that is worth a word.
	Holds string

	// Differs says that it is not as it should be: its Object is Name. Nil: it is.
	Differs *Difference

	// Count is how often it was used, nil where the kernel does not count that.
	Count *Count
}

// Count is how many packets passed an object, or connections.
type Count struct {
	Packets, Bytes uint64

	// Connections are those of a backend: active ones, and those that are about to end.
	Active, Inactive uint32
}
