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

// section is the title of the part that a run writes, after modeHeading.
func (c config) section() string {
	if c.Asked {
		return c.Mode.name + ", asked"
	}
	return c.Mode.name
}

// write puts the report into a file, beside those of other modes.
func (r report) write(file string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(file, []byte(document(string(old), r.cfg.section(), r.markdown())), 0o644)
}

// document is an old document with another section of a title. Sections are ordered by title.
func document(old, title, section string) string {
	sections := map[string]string{title: section}
	parts := strings.Split(old, "\n"+modeHeading)
	for _, part := range parts[1:] {
		name, _, _ := strings.Cut(part, "\n")
		if name != title {
			sections[name] = modeHeading + part
		}
	}
	text := introduction
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		text += "\n" + strings.TrimRight(sections[name], "\n") + "\n"
	}
	return text
}
