// Package loop decides when what is wanted reaches the kernel. It takes changes from the tracker and
// the facts of the node, lets a builder per IP family turn them into snapshots, and gives each
// dataplane the newest one: at once when it is idle, batched when it is busy, again when it failed.
//
// It knows neither Kubernetes objects nor any mode, and it holds no state that matters: a
// snapshot that an Apply missed is part of the next one.
package loop
