// Package trace follows live packets of one flow through the rules of a node: what nf_tables tells of them, those of other tables
// and of iptables-nft included, and what connection tracking and IPVS make of their connections. It leaves nothing behind.
package trace
