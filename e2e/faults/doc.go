// Package faults breaks things around and in a running Sluice, under load, and counts the connections
// that it costs. A fault may cost only what it makes impossible; see the excuses of each story.
package faults
