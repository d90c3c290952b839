package ipvs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/nft"
)

// watcher notices that somebody else changed what is ours.
type watcher struct {
	d        *dataplane
	table    *nft.Runner
	servers  *kernel.IPVS
	router   *kernel.Router
	settings func() *settingsWatch
}

// run watches everything until ctx ends or one thing cannot be watched. All sockets are opened by the calling goroutine:
// they belong to its network namespace.
func (w *watcher) run(ctx context.Context, doubt func(reason string)) error {
	look, err := w.servers.Look(ctx)
	if err != nil {
		return err
	}
	defer look.Close()
	settings := w.settings()
	defer settings.close()
	routes, err := w.router.Watch()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var lock sync.Mutex
	one := func(reason string) {
		lock.Lock()
		defer lock.Unlock()
		doubt(reason)
	}
	var others sync.WaitGroup
	var failed error
	others.Go(func() {
		failed = w.watchRoutes(ctx, routes, one)
		stop()
	})
	others.Go(func() { w.watchServers(ctx, look, settings, one) })
	err = w.table.Watch(ctx, one)
	stop()
	others.Wait()
	return errors.Join(err, failed)
}

func (w *watcher) watchRoutes(ctx context.Context, routes *kernel.RouterWatch, doubt func(string)) error {
	return routes.Run(ctx, func() {
		want := w.d.routes.Load()
		if want == nil {
			return
		}
		if reason, err := routes.Missing(*want); err == nil && reason != "" {
			doubt(reason)
		}
	})
}

// watchServers looks at the virtual servers, and at settings.
func (w *watcher) watchServers(ctx context.Context, look *kernel.Look, settings *settingsWatch, doubt func(string)) {
	a := &auditor{d: w.d, look: look, settings: settings}
	tick := time.NewTicker(auditInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if reason, err := a.audit(ctx); err == nil && reason != "" {
			doubt(reason)
		}
	}
}
