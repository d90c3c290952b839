// Package ipvs tests the IPVS mode where there is IPVS: in the virtual machine of e2e/vm, with -exec e2e/vm/run. In Go it has
// tests only.
package ipvs
