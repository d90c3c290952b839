// Package explain says what becomes of a new connection on a node, and why. It decides by the snapshot that the dataplanes carry
// into the kernel, and reads no kernel itself: what it says is what should happen. It is pure, and as it only reads what is
// immutable it holds nobody up.
package explain
