// Package nft is the boundary between modes and nf_tables in the kernel. It writes one table through the program
// nft, reads back what the kernel holds of it, and notices when somebody else changes it. It knows no Service.
package nft
