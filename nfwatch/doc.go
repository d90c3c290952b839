// Package nfwatch notices commits to nf_tables: what they changed, and who made them. It knows no table.
package nfwatch
