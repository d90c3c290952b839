package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// panel is what a panel of a dashboard asks for.
type panel struct {
	Title       string   `json:"title"`
	Expressions []string `json:"expressions"`
}

// panels reads a dashboard by Grafana's schema, to the letter.
func panels(in io.Reader) ([]panel, error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	plugins.RegisterDefaultPlugins()
	var strict, d dashboard.Dashboard //nolint:staticcheck // what takes its place is not what Grafana loads from files
	if err := strict.UnmarshalJSONStrict(text); mistakes(err) {
		return nil, err
	}
	// For the same reason strict has no panels.
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, err
	}
	if err := d.Validate(); mistakes(err) {
		return nil, err
	}
	var all []panel
	for i, p := range d.Panels {
		switch {
		case p.RowPanel != nil:
		case p.Panel != nil && p.Panel.Title != nil:
			found := panel{Title: *p.Panel.Title}
			for _, target := range p.Panel.Targets {
				query, ok := target.(*prometheus.Dataquery)
				if !ok {
					return nil, fmt.Errorf("panel %q asks a %T", found.Title, target)
				}
				found.Expressions = append(found.Expressions, query.Expr)
			}
			all = append(all, found)
		default:
			return nil, fmt.Errorf("panel %d has no title", i)
		}
	}
	return all, nil
}

// mistakes tells whether an error names any: where all is well, Grafana's library returns an empty list that is not nil.
func mistakes(err error) bool {
	if list, ok := errors.AsType[cog.BuildErrors](err); ok {
		return len(list) > 0
	}
	return err != nil
}
