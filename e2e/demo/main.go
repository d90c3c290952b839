// Command demo shows Sluice at work: a node, a client and three backends in private network
// namespaces, the real binary on the node, real requests. It fails if what it shows is not what it
// should be, and leaves nothing behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	mode := flag.String("mode", "iptables", "the mode that Sluice runs in")
	sluice := flag.String("sluice", "bin/sluice", "path of the binary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *sluice, *mode); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, sluice, mode string) (err error) {
	start := time.Now()
	s, err := newStage(sluice, mode)
	if err != nil {
		return err
	}
	defer func() {
		if closed := s.close(); err == nil {
			err = closed
		}
	}()
	for _, scene := range []func(context.Context) error{
		s.showNetwork,
		s.showSpread,
		s.showRules,
		s.showLeaving,
		s.showNodePort,
		s.showAffinity,
		s.showEnd,
	} {
		err := scene(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, s.said())
		}
	}
	s.screen.line("")
	s.screen.good("All as it should be, in %d seconds.", int(time.Since(start).Seconds()))
	return nil
}
