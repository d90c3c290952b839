package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

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
		if err := pause(ctx, retireAgain); err != nil {
			return err
		}
	}
}

// drainKubeProxy waits until connections have ended that go through virtual servers of kube-proxy or come from addresses of its
// interface, but no longer than the limit. There are no new ones: Sluice translates them, and they have other addresses.
func drainKubeProxy(ctx context.Context, limit time.Duration) error {
	virtual := kubeProxysServers()
	if err := virtual.Spare(); err != nil {
		klog.FromContext(ctx).Error(err, "Connections of the node itself go on to come from addresses of kube-proxy's interface, and end with it")
	}
	return awaitNone(ctx, limit, virtual.Connections)
}

// awaitNone waits until no connection is counted any more, but no longer than the limit.
func awaitNone(ctx context.Context, limit time.Duration, count func(context.Context) (uint32, error)) error {
	since := time.Now()
	for first := true; ; first = false {
		n, err := count(ctx)
		if err != nil || n == 0 {
			return err
		}
		rest := limit - time.Since(since)
		if rest <= 0 {
			return nil
		}
		if first {
			klog.FromContext(ctx).Info("Waiting for connections to end that depend on kube-proxy's IPVS", "connections", n, "limit", limit)
		}
		if err := pause(ctx, min(retireAgain, rest)); err != nil {
			return err
		}
	}
}

// pause lets connections end.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
