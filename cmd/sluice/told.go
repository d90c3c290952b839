package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"time"

	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/history"
	"github.com/sluice-proxy/sluice/proxy/record"
)

// told are all answers that root gets of a running proxy: those to questions, and what only the proxy knows of what a bundle has.
func (p *proxier) told() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", p.questions.handler())
	mux.Handle("GET /metrics", p.metrics.Handler())
	for path, write := range map[string]func(io.Writer) error{
		"/record": p.writeRecord,
		"/syncs":  p.writeSyncs,
		"/config": p.writeConfig,
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			if err := write(w); err != nil {
				panic(http.ErrAbortHandler) // the client has to see that it is not all
			}
		})
	}
	return mux
}

// writeRecord writes what is served, and why.
func (p *proxier) writeRecord(w io.Writer) error {
	r := record.Record{Taken: time.Now(), Program: version(), Mode: p.mode.name}
	services := map[proxy.ServiceName]bool{}
	for _, f := range proxy.Families {
		view := p.questions.view(f)
		if view == nil {
			continue
		}
		r.Families = append(r.Families, record.Family{Snapshot: view.Snapshot, SetAside: view.SetAside, Relay: view.Relay})
		for name := range view.Snapshot.All() {
			services[name.Service()] = true
		}
	}
	for name := range services {
		r.Inputs = append(r.Inputs, p.questions.input(name))
	}
	record.SortInputs(r.Inputs)
	return record.Write(w, r)
}

// writeSyncs writes what the loop did lately, and what it knows of the kernel.
func (p *proxier) writeSyncs(w io.Writer) error {
	kernel := map[string]history.Kernel{}
	for _, f := range proxy.Families {
		kernel[f.String()] = p.history.Kernel(f)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(map[string]any{"started": p.history.Started(), "kernel": kernel, "syncs": p.history.Since(0)})
}

// writeConfig writes what is in force, and what was asked for.
func (p *proxier) writeConfig(w io.Writer) error {
	inForce, err := configuration(p.cfg, p.mode)
	if err != nil {
		return err
	}
	arguments := make([]string, len(os.Args))
	for i, argument := range os.Args {
		arguments[i] = withoutPassword(argument)
	}
	text, err := json.Marshal(map[string]any{"arguments": arguments, "inForce": json.RawMessage(inForce)})
	if err != nil {
		return err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, []byte(withoutPassword(string(text))), "", "  "); err != nil {
		return err
	}
	_, err = indented.WriteTo(w)
	return err
}

// password is the part of a URL that nobody else should see.
var password = regexp.MustCompile(`://[^/@\s"]+@`)

func withoutPassword(text string) string { return password.ReplaceAllString(text, "://…@") }
