package xtables

import (
	"context"
	"errors"

	"github.com/sluice-proxy/sluice/proxy"
)

// kubelet creates these in table mangle, in the backend that the node uses. They hold no rules.
var hints = []string{"KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"}

// Detect finds the backend that a family should use: the one in which kubelet left its hint, else the one that
// holds more rules of kube-proxy and of ours, else that of the plain command in PATH. It changes nothing.
func Detect(ctx context.Context, family proxy.Family) (Backend, error) {
	var present []tools
	var missing []error
	for _, backend := range Backends {
		t, err := findTools(ctx, family, backend)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		present = append(present, t)
	}
	switch len(present) {
	case 0:
		return "", errors.Join(missing...)
	case 1:
		return present[0].backend, nil
	}
	if backend, err := detectByContents(ctx, family, present); err != nil || backend != "" {
		return backend, err
	}
	if plain, err := findPlainTools(ctx, family); err == nil {
		return plain.backend, nil
	}
	return present[0].backend, nil
}

// detectByContents gives "" if the tables do not tell.
func detectByContents(ctx context.Context, family proxy.Family, present []tools) (Backend, error) {
	var able []tools
	for _, t := range present {
		hinted, err := t.hinted(ctx, family)
		if NoKernel(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		if hinted {
			return t.backend, nil
		}
		able = append(able, t)
	}
	if len(able) == 1 {
		return able[0].backend, nil
	}
	var best Backend
	most := 0
	for _, t := range able {
		n, err := t.serviceRules(ctx, family)
		if err != nil {
			return "", err
		}
		if n > most {
			best, most = t.backend, n
		}
	}
	return best, nil
}

func (t tools) hinted(ctx context.Context, family proxy.Family) (bool, error) {
	found, err := t.list(ctx, family, "mangle", "KUBE-")
	for _, hint := range hints {
		if _, ok := found.chains[hint]; ok {
			return true, err
		}
	}
	return false, err
}

// serviceRules counts rules of kube-proxy, kubelet and ourselves.
func (t tools) serviceRules(ctx context.Context, family proxy.Family) (int, error) {
	sum := 0
	for _, table := range ourTables {
		for _, prefix := range []string{"KUBE-", DefaultPrefix} {
			found, err := t.list(ctx, family, table, prefix)
			if err != nil {
				return 0, err
			}
			for _, rules := range found.chains {
				sum += rules
			}
		}
	}
	return sum, nil
}

// list is read for a table that may not exist.
func (t tools) list(ctx context.Context, family proxy.Family, table, prefix string) (contents, error) {
	if exists, err := t.holds(family, table); err != nil || !exists {
		return newContents(), err
	}
	return t.read(ctx, family, table, prefix)
}
