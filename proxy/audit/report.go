package audit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/sluice-proxy/sluice/proxy"
)

// Report is what a comparison found, as it is written for programs.
type Report struct {
	Mode        string    `json:"mode"`
	Differences []Finding `json:"differences"` // never nil
}

// Finding is a difference in the words of people and programs.
type Finding struct {
	Family  string `json:"family"`
	Kind    string `json:"kind"`
	Object  string `json:"object"`
	Detail  string `json:"detail,omitempty"`
	Service string `json:"service,omitempty"`
}

// NewReport is that of no difference yet.
func NewReport(mode string) Report { return Report{Mode: mode, Differences: []Finding{}} }

// Add adds the differences of a family.
func (r *Report) Add(f proxy.Family, list []proxy.Difference) {
	for _, x := range list {
		r.Differences = append(r.Differences, Finding{f.String(), x.Kind.String(), x.Object, x.Detail, x.Service})
	}
}

// WriteJSON writes all of it for programs.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes for people, a line each, at most so many; 0 is all. Without differences it writes nothing.
func (r Report) WriteText(w io.Writer, most int) error {
	list := r.Differences
	if len(list) == 0 {
		return nil
	}
	if most > 0 {
		list = list[:min(most, len(list))]
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FAMILY\tIS\tOBJECT\tSERVICE\tDETAIL")
	for _, x := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", x.Family, x.Kind, x.Object, cmp.Or(x.Service, "-"), x.Detail)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := len(r.Differences) - len(list); more > 0 {
		_, err := fmt.Fprintf(w, "… and %d more, which --all shows\n", more)
		return err
	}
	return nil
}
