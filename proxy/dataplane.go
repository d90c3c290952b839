package proxy

import (
	"context"
	"time"
)

// Dataplane makes the kernel serve snapshots of one IP family. It is not safe for concurrent use.
type Dataplane interface {
	// Apply returns nil only if the kernel now serves want, but for the ServicePorts that the
	// report sets aside, and nothing of ours that want does not name. It may be called again with
	// the same snapshot, and after an error with a newer one; connections that both the old and the
	// new state allow survive it.
	Apply(ctx context.Context, want *Snapshot) (Report, error)

	// Resync makes the next Apply distrust what earlier ones recorded about the kernel.
	Resync(reason string)
}

// Watcher is a Dataplane that can notice that somebody else changed what it owns.
type Watcher interface {
	// Watch calls doubt, from its own goroutine, with a reason whenever the kernel may no longer
	// hold what was applied, until ctx ends. Its owner then calls Resync and Apply.
	Watch(ctx context.Context, doubt func(reason string)) error
}

// Rememberer is a Dataplane that keeps the clients of session affinity in one place, which may become full.
type Rememberer interface {
	// Clients is how many are remembered, and how many can be: further ones are served, and not remembered. The number may
	// be some minutes old. It is safe for concurrent use.
	Clients() (n, limit int, err error)
}

// Report is what an Apply did. After an error it holds what is known.
type Report struct {
	// Again, when not 0, asks for another Apply after that time even if nothing changes.
	Again time.Duration

	// SetAside lists the ServicePorts that the kernel refused and that are not served, for as long as
	// that lasts, not only when it is found.
	SetAside []SetAside

	// Full says that everything was written, not only a difference.
	Full bool

	// Tables counts the mode's objects by table or kind of object.
	Tables []TableCount

	// Bytes is how much was handed to the kernel's tools. Refusals counts what the kernel did not take,
	// the attempts to find out which ServicePort is to blame included.
	Bytes, Refusals int

	// Transactions is how many times something was handed to the kernel.
	Transactions int
}

// SetAside is a ServicePort that could not be applied, and why.
type SetAside struct {
	Name ServicePortName
	Err  error
}

// TableCount says how many objects (rules, elements, servers) of ours a table holds and how many of
// them this Apply wrote.
type TableCount struct {
	Table           string
	Objects, Writes int
}

// Mode is one way to program the kernel.
type Mode interface {
	// Name is the value of --mode that selects it.
	Name() string

	// Supported says why this node cannot run the mode in that family, naming what is missing.
	Supported(ctx context.Context, family Family) error

	// New makes the dataplane of a family. It changes nothing in the kernel.
	New(family Family) (Dataplane, error)

	// Traces names what Cleanup would remove or set back, an object each. It changes nothing. After an error it
	// names what it found.
	Traces(ctx context.Context) ([]string, error)

	// Cleanup removes every trace of the mode in both families. It works without New and is
	// harmless where there is nothing to remove.
	Cleanup(ctx context.Context) error
}

// Preparer is a Mode that needs something of the kernel that is no rule, such as parameters.
type Preparer interface {
	// Prepare sets what is not as it should be for the families that will be served, before New. To set parameters takes more rights
	// than the rest; if they are all set it takes no more.
	Prepare(ctx context.Context, served []Family) error
}

// Yielder is a Mode that would keep connections from another mode which serves beside it.
type Yielder interface {
	// Yield is called before another mode serves for the first time. What an earlier start in this mode left in the kernel
	// goes on to serve, but it refuses nothing any more, and a connection that the other mode translates is the other's. A
	// later start in this mode takes it all back.
	Yield(ctx context.Context) error
}

// Retirer is a Mode whose connections end when its rules are removed, unlike those that connection tracking translates.
type Retirer interface {
	// Retire is called instead of Cleanup once another mode serves, and again every now and then until nothing is left.
	// New connections are the other mode's. What is left goes as its connections end; if it has not gone when the mode's
	// limit has passed since that time, its connections end as well.
	Retire(ctx context.Context, since time.Time) (left bool, err error)
}
