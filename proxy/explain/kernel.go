package explain

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/sluice-proxy/sluice/proxy"
)

// Kernel is what implements an answer in the kernel.
type Kernel struct {
	Mode    string
	Objects []proxy.Object
	Err     error // why it could not be looked at

	// Keeps is the backend that the client's next connection goes to because of session affinity, the zero AddrPort if there is none.
	Keeps netip.AddrPort
}

// Agrees tells whether all is as it should be, as far as somebody looked. Nobody did if k is nil.
func (k *Kernel) Agrees() bool { return k == nil || k.Err == nil && k.wrong() == 0 }

// wrong is how many objects are not as they should be.
func (k *Kernel) wrong() (n int) {
	for _, o := range k.Objects {
		if o.Differs != nil {
			n++
		}
	}
	return n
}

// verdict says whether the kernel agrees.
func (k *Kernel) verdict() string {
	switch {
	case k.Err != nil:
		return fmt.Sprintf("not known: %v", k.Err)
	case k.wrong() > 0:
		return fmt.Sprintf("differs from that: of what implements it in mode %s, %d are not as they should be", k.Mode, k.wrong())
	}
	return fmt.Sprintf("agrees, in mode %s", k.Mode)
}

// shownObjects is how many objects the text has, beside those that are not as they should be.
const shownObjects = 20

// write writes the objects for people, those that are wrong first.
func (k *Kernel) write(w io.Writer) error {
	if k == nil || len(k.Objects) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nRIGHT\tHOLDS\tIN THE KERNEL") // names can be long
	good := 0
	for _, o := range k.Objects {
		if o.Differs != nil {
			fmt.Fprintf(t, "no\t%s\t%s\n", agreement(o), o.Name)
		}
	}
	for _, o := range k.Objects {
		if o.Differs != nil {
			continue
		}
		if good++; good <= shownObjects {
			fmt.Fprintf(t, "yes\t%s\t%s\n", holds(o), o.Name)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := good - shownObjects; more > 0 {
		_, err := fmt.Fprintf(w, "… and %d more that are as they should be, which the JSON form has\n", more)
		return err
	}
	return nil
}

// holds is what is in an object, and how often it was used.
func holds(o proxy.Object) string {
	texts := []string{}
	if o.Holds != "" {
		texts = append(texts, o.Holds)
	}
	if c := o.Count; c != nil && c.Packets+c.Bytes > 0 {
		texts = append(texts, fmt.Sprintf("%d packets, %d bytes", c.Packets, c.Bytes))
	}
	if c := o.Count; c != nil && c.Active+c.Inactive > 0 {
		texts = append(texts, fmt.Sprintf("%d active and %d ending connections", c.Active, c.Inactive))
	}
	return strings.Join(texts, "; ")
}

// agreement says what is wrong with an object.
func agreement(o proxy.Object) string {
	text := o.Differs.Kind.String()
	if o.Differs.Detail != "" {
		text += ", " + o.Differs.Detail
	}
	return text
}

// kernelJSON is the written form of a Kernel for programs.
type kernelJSON struct {
	Mode    string       `json:"mode"`
	Agrees  bool         `json:"agrees"`
	Error   string       `json:"error,omitempty"`
	Keeps   string       `json:"keeps,omitempty"` // the backend of the client's next connection
	Objects []objectJSON `json:"objects,omitempty"`
}

type objectJSON struct {
	Object  string     `json:"object"`
	Holds   string     `json:"holds,omitempty"`
	Differs string     `json:"differs,omitempty"` // missing, altered or foreign
	Detail  string     `json:"detail,omitempty"`
	Count   *countJSON `json:"count,omitempty"`
}

type countJSON struct {
	Packets  uint64 `json:"packets"`
	Bytes    uint64 `json:"bytes"`
	Active   uint32 `json:"activeConnections"`
	Inactive uint32 `json:"endingConnections"`
}

// json is nil if nobody looked.
func (k *Kernel) json() *kernelJSON {
	if k == nil {
		return nil
	}
	j := &kernelJSON{Mode: k.Mode, Agrees: k.Agrees()}
	if k.Keeps.IsValid() {
		j.Keeps = k.Keeps.String()
	}
	if k.Err != nil {
		j.Error = k.Err.Error()
	}
	for _, o := range k.Objects {
		one := objectJSON{Object: o.Name, Holds: o.Holds}
		if o.Differs != nil {
			one.Differs, one.Detail = o.Differs.Kind.String(), o.Differs.Detail
		}
		if o.Count != nil {
			c := countJSON(*o.Count)
			one.Count = &c
		}
		j.Objects = append(j.Objects, one)
	}
	return j
}
