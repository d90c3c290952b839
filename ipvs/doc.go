// Package ipvs is the mode in which the kernel's IPVS balances connections. No frontend's address is on any device: a
// table of nf_tables of constant size leads packets for frontends to IPVS.
package ipvs
