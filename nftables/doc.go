// Package nftables serves Services with one nftables table of its own in each IP family, with a number of chains that
// does not grow with the number of Services: all that varies lives in maps and sets. The README shows a packet's way.
//
// A snapshot is rendered to elements (pure), two renderings to the elements that differ (pure), and those are brought
// to the kernel through package nft, the boundary. The package knows no Kubernetes object and no other mode.
package nftables
