package nftables

import (
	"context"
	"io"

	"github.com/sluice-proxy/sluice/nft"
)

// List implements proxy.Lister.
func (mode) List(ctx context.Context, w io.Writer) error { return nft.ListAll(ctx, tables(), w) }
