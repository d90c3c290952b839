// Package kernel is the boundary between the IPVS mode and the kernel, but for nf_tables: virtual servers, the rules and
// routes that lead packets to them, and kernel parameters. It knows no Service.
package kernel
