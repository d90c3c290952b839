// Package kernel plays the scenarios of package proxytest in the real kernel, for every mode and every
// kernel interface that a mode may use. It has tests only.
package kernel
