package xtables

import (
	"context"
	"fmt"
)

// Backend is one of the two implementations of iptables. Rules of one are invisible to the other,
// though the kernel runs both.
type Backend string

// The backends. Auto stands for the one that others on the node use.
const (
	Auto   Backend = "auto"
	NFT    Backend = "nft"
	Legacy Backend = "legacy"
)

// Backends lists the two that hold rules.
var Backends = [...]Backend{NFT, Legacy}

// DefaultPrefix starts the name of every chain that is ours.
const DefaultPrefix = "SLUICE-"

// Jump is a rule in a built-in chain that leads to one of our chains.
type Jump struct {
	Table, Chain string

	// Match holds the arguments before the target, in the spelling and order of iptables-save.
	Match []string

	// Target is the chain that is jumped to; it must exist.
	Target string

	// Comment is carried by the rule. It may be empty.
	Comment string
}

// Interface is the iptables of one IP family. It is not safe for concurrent use.
type Interface interface {
	// Restore runs iptables-restore --noflush with input. Each table of the input is committed by itself,
	// in the order of the input: after an error the tables before the refused one are changed, and
	// it and those after it are not. An error is a *RestoreError if the tool ran and refused.
	Restore(ctx context.Context, input []byte) error

	// Chains lists the user-defined chains of a table whose name starts with prefix, with the number
	// of their rules. A table that does not exist has no chains.
	Chains(ctx context.Context, table, prefix string) (map[string]int, error)

	// EnsureJumps makes the jumps the first rules of their built-in chains, in the given order.
	// Where they are all there, it moves them only if they are out of order, doubled, or behind a rule
	// that leads to a chain of kube-proxy's. No packet misses a jump meanwhile: a table
	// changes in one commit or, where iptables cannot list it, gets new jumps before it loses old ones. Jumps to other targets are left alone: see RemoveJumps.
	EnsureJumps(ctx context.Context, jumps []Jump) error

	// RemoveJumps deletes every rule of a built-in chain in nat and filter that leads to a chain whose
	// name starts with prefix.
	RemoveJumps(ctx context.Context, prefix string) error
}

// RestoreError is a refusal by iptables-restore.
type RestoreError struct {
	// Line of the input that is to blame, counted from 1. It is 0 if the tool blamed none, or
	// only a COMMIT, that is a whole table.
	Line int

	// Resource says that the input is not to blame: the lock was taken, memory or time ran out.
	// Another try may succeed.
	Resource bool

	// Output is what the tool wrote, trimmed.
	Output string

	// Err is the exit status, or the context's error if the tool was stopped.
	Err error
}

// Error names the line if it is known.
func (e *RestoreError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("iptables-restore: line %d: %v: %s", e.Line, e.Err, e.Output)
	}
	return fmt.Sprintf("iptables-restore: %v: %s", e.Err, e.Output)
}

// Unwrap gives Err.
func (e *RestoreError) Unwrap() error { return e.Err }
