package main

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

const (
	introduction = "# Benchmarks\n\nSluice and kube-proxy, measured one after the other. Written by `make bench`: do not edit.\n"
	modeHeading  = "## Mode "
)

// heading begins a mode's section.
func heading(mode string) string { return modeHeading + mode }

// write puts the report into a file, beside those of other modes.
func (r report) write(file string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(file, []byte(document(string(old), r.cfg.Mode.name, r.markdown())), 0o644)
}

// document is an old document with another section of one mode. Sections are ordered by mode.
func document(old, mode, section string) string {
	sections := map[string]string{mode: section}
	parts := strings.Split(old, "\n"+modeHeading)
	for _, part := range parts[1:] {
		name, _, _ := strings.Cut(part, "\n")
		if name != mode {
			sections[name] = modeHeading + part
		}
	}
	text := introduction
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		text += "\n" + strings.TrimRight(sections[name], "\n") + "\n"
	}
	return text
}
