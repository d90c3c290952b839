package ipvs

import (
	"bytes"
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

// List implements proxy.Lister. Virtual servers of others are listed, too.
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
		errs = append(errs, listServers(ctx, kernel.NewIPVS(f), w))
	}
	// Of the thread, not of the process, which may be in another network namespace.
	stats, err := os.ReadFile("/proc/thread-self/net/ip_vs_stats")
	if err == nil {
		_, err = fmt.Fprintf(w, "ip_vs_stats:\n%s", stats)
	}
	if !errors.Is(err, fs.ErrNotExist) { // else the kernel has not loaded IPVS
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// listServers writes virtual servers and their backends. The kernel's own list in /proc is read page by page, and leaves out
// servers of this network namespace while others have some (Linux 6.1).
func listServers(ctx context.Context, servers *kernel.IPVS, w io.Writer) error {
	all, err := servers.ListIfLoaded(ctx)
	if err != nil {
		return err
	}
	ids := make([]kernel.ID, len(all))
	for i, s := range all {
		ids[i] = s.ID
	}
	loads, err := servers.Dests(ctx, ids)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, s := range all {
		fmt.Fprintf(&text, "virtual server %v, scheduler %s", s.ID, s.Scheduler)
		if s.Timeout > 0 {
			fmt.Fprintf(&text, ", persistent for %d s", s.Timeout)
		}
		text.WriteByte('\n')
		for _, l := range loads[s.ID] {
			fmt.Fprintf(&text, "  %v, weight %d, %d connections, %d of them active\n", l.Addr, l.Weight, l.Connections(), l.Active)
		}
	}
	_, err = text.WriteTo(w)
	return err
}
