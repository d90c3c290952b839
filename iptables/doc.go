// Package iptables is the mode that serves Services with rules of iptables, through either of its
// backends.
//
// It renders ServicePorts to chains, which are text, compares the chains of two snapshots and writes those
// that differ. It knows neither Kubernetes nor how a command is run: that is package xtables.
// README.md follows a packet through the chains.
package iptables
