package ipvs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
	"github.com/sluice-proxy/sluice/proxy"
)

// List implements proxy.Lister. Virtual servers of others are listed, too: the kernel's file has both families and all owners.
func (m mode) List(ctx context.Context, w io.Writer) error {
	var errs []error
	for _, f := range proxy.Families {
		errs = append(errs, nft.ListAll(ctx, tables(f), w))
		routing, err := kernel.NewRouter(f).Traces()
		errs = append(errs, err)
		for _, what := range routing {
			_, err := fmt.Fprintf(w, "%v: %s\n", f, what)
			errs = append(errs, err)
		}
	}
	for _, file := range []string{"ip_vs", "ip_vs_stats"} {
		// Of the thread, not of the process, which may be in another network namespace.
		text, err := os.ReadFile("/proc/thread-self/net/" + file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the kernel has not loaded IPVS
		}
		errs = append(errs, err)
		_, err = fmt.Fprintf(w, "%s:\n%s", file, text)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
