// Package bundle packs what support needs to know of a node into one archive, and unpacks single files of it. What cannot be had does
// not keep the rest from being packed. It knows nothing of what is packed.
package bundle
