package nft

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/nfwatch"
)

// ErrNoTables says that the kernel has no nf_tables, and no module of it that could be loaded.
var ErrNoTables = errors.New("the kernel has no nf_tables: module nf_tables is not loaded and cannot be")

// Available is ErrNoTables where the kernel has none. Whatever else is in the way, nft can say itself.
func Available() error {
	_, err := nfwatch.CurrentGeneration()
	if isMissing(err) {
		return ErrNoTables
	}
	return nil
}

// isMissing tells whether an error says that there is nobody to ask: no nfnetlink, or no nf_tables behind it.
func isMissing(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL)
}
