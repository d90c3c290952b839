package proxy

import "context"

// Inspector is a Dataplane that can compare the kernel with what should be there.
type Inspector interface {
	// Inspect lists how the kernel differs from what it would hold if want had been applied. It writes nothing, may run beside all
	// other methods and holds none of them up: it takes no account of what they did. What they change meanwhile may be taken
	// for a difference, so a look alone proves nothing where changes come. What depends on history and is right all the
	// same, such as the order of slots, numbers, backends that drain and the clients of session affinity, is no difference.
	Inspect(ctx context.Context, want *Snapshot) ([]Difference, error)
}

// Difference is an object of a mode in the kernel that is not as it should be.
type Difference struct {
	Kind DifferenceKind

	// Object is what it is about, in the words of the tool that shows it. No two differences of one kind in a list are about the
	// same object.
	Object string

	// Detail says what is wrong with an altered object, as far as that is known.
	Detail string

	// Service is the Service that the object is for, or its port as ServicePortName.String has it; several, with blanks between
	// them, or empty if it is for none in particular. A foreign object says so itself, if at all.
	Service string
}

// DifferenceKind says what is wrong with an object.
type DifferenceKind uint8

// The kinds of differences.
const (
	Missing DifferenceKind = iota // it should be there
	Altered                       // it is there, and should be otherwise
	Foreign                       // nobody wants it: others put it among what is ours, or it was left behind
)

// String is "missing", "altered" or "foreign".
func (k DifferenceKind) String() string { return [...]string{"missing", "altered", "foreign"}[k] }
