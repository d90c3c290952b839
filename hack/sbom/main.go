// Command sbom says what a binary of Go consists of, by what the toolchain wrote into it: a bill of materials in
// CycloneDX's JSON, and the licences of all modules as one text. It fails if a licence is not known to be acceptable. What it writes
// depends on the binary and its version alone.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	version := flag.String("version", "", "version of the binary")
	bom := flag.String("bom", "", "file for the bill of materials")
	texts := flag.String("licences", "", "file for the texts of all licences")
	flag.Parse()
	if err := run(flag.Args(), *version, *bom, *texts); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(args []string, version, bom, texts string) error {
	if len(args) != 1 || version == "" || bom == "" || texts == "" {
		return errors.New("usage: sbom -version VERSION -bom FILE -licences FILE BINARY")
	}
	b, err := inspect(args[0], version)
	if err != nil {
		return err
	}
	document, err := b.cycloneDX()
	if err != nil {
		return err
	}
	if err := os.WriteFile(bom, document, 0o644); err != nil {
		return err
	}
	return os.WriteFile(texts, b.licenceTexts(), 0o644)
}
