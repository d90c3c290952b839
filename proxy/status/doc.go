// Package status is a page for people that shows what a running proxy does: its Services, its latest syncs and what it knows of the
// kernel. The page is static and needs nothing from elsewhere; its data is read from what is immutable, by pages, so that nobody who
// syncs waits for it, and nothing is computed while nobody looks. It knows no mode.
package status
