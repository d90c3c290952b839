package nft

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/sluice-proxy/sluice/proxy"
)

// Interface is the table of one IP family. It is not safe for concurrent use, but Watch of a Runner may run
// beside it.
type Interface interface {
	// NewTransaction makes an empty transaction for the table.
	NewTransaction() *knftables.Transaction

	// Run runs a transaction: all of it takes effect at one moment, or nothing of it. After a *RefusedError
	// it is nothing; after any other error it is not known which.
	Run(ctx context.Context, tx *knftables.Transaction) error

	// Read is what the kernel holds of the table, nil if there is none.
	Read(ctx context.Context) (*State, error)

	// Count is how many elements a set has, expired ones that are still there included, 0 if there is no such set. Cheap says
	// that the kernel knows; before Linux 6.16 it has to list them all. It may run beside the other methods.
	Count(set string) (n int, cheap bool, err error)
}

// State is what the kernel holds of a table.
type State struct {
	// Fits says that the table has exactly the sets and base chains of the schema, and no element that the schema has no words
	// for. If it does not, Unlike says why, and of sets that are among that elements are not read.
	Fits   bool
	Unlike []proxy.Difference

	// Asleep says that no packet enters the table: somebody made it dormant.
	Asleep bool

	// Chains are the comments of the rules of each chain, in order.
	Chains map[string][]string

	// Elements are those of each set that is as it should be, but for what packets add. A set of another kind is not in it.
	Elements map[string][]Element
}

// Why says why the state does not fit.
func (s *State) Why() string {
	var texts []string
	for _, x := range s.Unlike {
		text := x.Object
		if x.Detail != "" {
			text += " (" + x.Detail + ")"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// isUnlike tells whether an object is among what does not fit.
func (s *State) isUnlike(object string) bool {
	return slices.ContainsFunc(s.Unlike, func(x proxy.Difference) bool { return x.Object == object })
}

// Element is an element as transactions write it: fields in the words of nft, joined by " . ". Of a prefix
// the host bits are zero.
type Element struct {
	Key, Value, Comment string
}

// RefusedError is a transaction that the kernel, or nft itself, did not take.
type RefusedError struct {
	// Missing says that something that the transaction names is not there, Exists that something that it
	// creates is.
	Missing, Exists bool

	// Resource says that the transaction is not to blame: memory ran out, or the kernel was busy.
	Resource bool

	// Output is what nft wrote, shortened.
	Output string
}

// Error is what nft wrote.
func (e *RefusedError) Error() string { return fmt.Sprintf("nft: %s", e.Output) }
