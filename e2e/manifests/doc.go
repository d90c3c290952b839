// Package manifests tests what operators install: that the API server takes manifests/ to the letter, that Sluice
// works with exactly the rights and privileges that they give it, and that docs/operate.md speaks of things that exist.
package manifests
