package kernel

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
)

// param is a kernel parameter of IPVS, of this network namespace.
type param struct {
	name        string
	want, usual int
	optional    bool // older kernels have no such parameter
}

const paramFolder = "proc/sys/net/ipv4/vs/"

// params are those that the mode needs.
func params() []param {
	list := []param{
		// Without it masquerading does not know the connections of IPVS.
		{name: "conntrack", want: 1, usual: 0},
		// Packets of a connection whose backend is gone find another one, at once.
		{name: "expire_nodest_conn", want: 1, usual: 0},
		// Clients with affinity leave a backend that drains.
		{name: "expire_quiescent_template", want: 1, usual: 0},
		// Rates that nobody reads cost a walk over all backends every two seconds.
		{name: "run_estimation", want: 0, usual: 1, optional: true},
	}
	if reuseIsBroken() {
		// These kernels drop the first packet of a connection whose port was used shortly before.
		list = append(list, param{name: "conn_reuse_mode", want: 0, usual: 1, optional: true})
	}
	return list
}

// reuseIsBroken tells whether the kernel is older than 5.9. There is no way to see it but the number.
func reuseIsBroken() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); n < 2 {
		return false
	}
	return major < 5 || major == 5 && minor < 9
}

// Change is a kernel parameter that was set, or is to be.
type Change struct {
	File       string
	Was, Value int
}

// Failure is a Change that could not be made.
type Failure struct {
	Change
	Err error // names the file and both values
}

// SetParams sets the parameters of IPVS that are not as the mode needs them, and says which. It goes on after a failure.
func SetParams(tree sysctl.Tree) (changes []Change, failures []Failure) {
	for _, p := range params() {
		was, err := tree.Set(paramFolder+p.name, p.want)
		c := Change{"/" + paramFolder + p.name, was, p.want}
		switch {
		case p.optional && errors.Is(err, fs.ErrNotExist):
		case err != nil:
			failures = append(failures, Failure{c, err})
		case was != p.want:
			changes = append(changes, c)
		}
	}
	return changes, failures
}

// ParamWatch looks at the parameters of IPVS in the network namespace of the thread that made it. It is for one goroutine.
type ParamWatch struct {
	tree  sysctl.Tree
	files map[string]sysctl.File
}

// WatchParams begins to look. What cannot be opened is left out for now.
func WatchParams(tree sysctl.Tree) *ParamWatch {
	w := &ParamWatch{tree, map[string]sysctl.File{}}
	for _, p := range params() {
		w.open(p)
	}
	return w
}

func (w *ParamWatch) open(p param) {
	if f, err := w.tree.Open(paramFolder + p.name); err == nil {
		w.files[p.name] = f
	}
}

// Wrong are the parameters that are not as the mode needs them. That costs a few reads, whatever else there is.
func (w *ParamWatch) Wrong() []Change {
	var all []Change
	for _, p := range params() {
		f, open := w.files[p.name]
		if !open {
			w.open(p)
			continue
		}
		switch is, err := f.Get(); {
		case err != nil: // the module may have been loaded anew
			f.Close()
			delete(w.files, p.name)
		case is != p.want:
			all = append(all, Change{"/" + paramFolder + p.name, is, p.want})
		}
	}
	return all
}

// Close ends it.
func (w *ParamWatch) Close() {
	for _, f := range w.files {
		f.Close()
	}
}

// Altered are the parameters that do not have the values that kernels start with, which are those of the Changes, and of these
// the ones that cannot be written.
func Altered(tree sysctl.Tree) (altered, fixed []Change, err error) {
	for _, p := range params() {
		file := paramFolder + p.name
		is, err := tree.Get(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && is == p.usual {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read parameters of IPVS: %w", err)
		}
		c := Change{"/" + file, is, p.usual}
		if tree.Writable(file) {
			altered = append(altered, c)
		} else {
			fixed = append(fixed, c)
		}
	}
	return altered, fixed, nil
}

// Make makes changes.
func Make(tree sysctl.Tree, changes []Change) error {
	var errs []error
	for _, c := range changes {
		if _, err := tree.Set(c.File, c.Value); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
