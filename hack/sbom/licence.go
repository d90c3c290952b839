package main

import (
	"regexp"
	"slices"
	"strings"
)

// isLicence tells whether a file of that name must be passed on.
func isLicence(name string) bool {
	name, _, _ = strings.Cut(strings.ToUpper(name), ".")
	switch name {
	case "LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE":
		return true
	}
	return strings.HasPrefix(name, "LICENSE-") || strings.HasPrefix(name, "LICENCE-")
}

// acceptable are the licences that a part may have. A text is one if it has all phrases of a row.
var acceptable = []struct {
	name    string
	phrases []string
}{
	{"Apache-2.0", []string{"apache license", "version 2.0, january 2004"}},
	{"Apache-2.0", []string{"licensed under the apache license, version 2.0"}},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "neither the name"}},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "the names of its contributors may not be used"}},
	{"BSD-2-Clause", []string{"redistribution and use in source and binary forms"}},
	{"ISC", []string{"permission to use, copy, modify, and/or distribute this software for any purpose"}},
	{"ISC", []string{"permission to use, copy, modify, and distribute this software for any purpose"}},
	{"MIT", []string{"permission is hereby granted, free of charge, to any person obtaining a copy"}},
}

var spaces = regexp.MustCompile(`\s+`)

// classify names the licences in a text.
func classify(text string) []string {
	text = spaces.ReplaceAllString(strings.ToLower(text), " ")
	var names []string
	for _, l := range acceptable {
		shorter := l.name == "BSD-2-Clause" && slices.Contains(names, "BSD-3-Clause")
		if !shorter && !slices.Contains(names, l.name) && containsAll(text, l.phrases) {
			names = append(names, l.name)
		}
	}
	return names
}

func containsAll(text string, phrases []string) bool {
	return !slices.ContainsFunc(phrases, func(p string) bool { return !strings.Contains(text, p) })
}
