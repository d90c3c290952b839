package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	own, err := os.ReadFile(filepath.Join("..", "..", "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	const bsd = "Redistribution and use in source and\n binary forms, with or without modification, are permitted"
	for text, want := range map[string][]string{
		string(own): {"Apache-2.0"},
		bsd:         {"BSD-2-Clause"},
		bsd + "\nNeither the name of its contributors": {"BSD-3-Clause"},
		"Permission is hereby granted, free of charge, to any person\nobtaining a copy. Some files are\nLicensed under the Apache License, Version 2.0": {"Apache-2.0", "MIT"},
		"GNU GENERAL PUBLIC LICENSE Version 3": nil,
		"":                                     nil,
	} {
		if got := classify(text); !slices.Equal(got, want) {
			t.Errorf("classify(%.40q…) = %v, want %v", text, got, want)
		}
	}
}

func TestLicencesAreFoundAndUnknownOnesRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := newPart("example.com/m", "v1.0.0", dir); err == nil || !strings.Contains(err.Error(), "no licence") {
		t.Errorf("a module without a licence: %v", err)
	}
	write("LICENSE.md", "Permission is hereby granted, free of charge, to any person obtaining a copy")
	write("NOTICE", "of the authors")
	write("README.md", "GNU GENERAL PUBLIC LICENSE")
	p, err := newPart("example.com/m", "v1.0.0", dir)
	if err != nil || !slices.Equal(p.licences, []string{"MIT"}) || len(p.files) != 2 {
		t.Errorf("%v, %v", p, err)
	}
	write("COPYING", "GNU GENERAL PUBLIC LICENSE")
	if _, err := newPart("example.com/m", "v1.0.0", dir); err == nil || !strings.Contains(err.Error(), "COPYING") {
		t.Errorf("a licence that nobody knows: %v", err)
	}
}
