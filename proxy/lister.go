package proxy

import (
	"context"
	"io"
)

// Lister is a Mode that can show what it has in the kernel.
type Lister interface {
	// List writes, for people and in the words of the kernel's tools where there are any, what the mode has in the kernel in both
	// families. It changes nothing. After an error it has written what it found.
	List(ctx context.Context, w io.Writer) error
}
