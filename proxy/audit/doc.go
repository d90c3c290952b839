// Package audit compares the kernel with what was applied to it: whenever somebody asks, and every so often. It knows no mode, and
// holds up neither the one that applies nor the kernel: it reads beside them, and believes only what it sees twice.
package audit
