package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/proxy"
)

// drain leaves new connections to another proxy, which serves by now, and waits until those have ended that would end with
// the rules of a mode. After some time it waits no longer.
func drain(ctx context.Context, chosen []mode, limit time.Duration) error {
	var errs []error
	var others []proxy.Mode
	for _, m := range chosen {
		others = append(others, m.make(ctx, ModeConfig{IPVS: ipvs.Config{DrainLimit: limit}}))
	}
	makeRoom(ctx, others)
	for _, m := range others {
		if r, ok := m.(proxy.Retirer); ok {
			errs = append(errs, retire(ctx, r))
		}
	}
	return errors.Join(errs...)
}

// retire retires a mode to the end.
func retire(ctx context.Context, r proxy.Retirer) error {
	since := time.Now()
	for {
		left, err := r.Retire(ctx, since)
		if err != nil {
			return fmt.Errorf("wait for connections to end: %w", err)
		}
		if !left {
			return nil
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// drainKubeProxy waits until connections have ended that go through virtual servers of kube-proxy, but no longer than the
// limit. There are no new ones: Sluice translates them.
func drainKubeProxy(ctx context.Context, limit time.Duration) error {
	virtual := kubeProxysServers()
	for since := time.Now(); time.Since(since) < limit; {
		n, err := virtual.Connections(ctx)
		if err != nil || n == 0 {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pause lets connections end.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(retireAgain):
		return nil
	}
}
