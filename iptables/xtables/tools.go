package xtables

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/sluice-proxy/sluice/proxy"
)

// tools are the absolute paths of one family's programs, all of one backend.
type tools struct {
	backend              Backend
	main, restore, saver string
}

// command is the plain name of the family's program.
func command(family proxy.Family) string {
	if family == proxy.IPv6 {
		return "ip6tables"
	}
	return "iptables"
}

// findTools looks for the programs of a backend: first by the names that carry it, then by the
// plain names, if those are of that backend. Images built for one backend often have only the latter.
func findTools(ctx context.Context, family proxy.Family, backend Backend) (tools, error) {
	name := command(family)
	suffixed, err := lookPaths(name + "-" + string(backend))
	if err == nil {
		suffixed.backend = backend
		return suffixed, nil
	}
	plain, plainErr := findPlainTools(ctx, family)
	if plainErr != nil {
		return tools{}, errors.Join(err, plainErr)
	}
	if plain.backend != backend {
		return tools{}, fmt.Errorf("%w, and %s is of backend %s", err, plain.main, plain.backend)
	}
	return plain, nil
}

// findPlainTools looks for the programs without a backend in their names and asks which it is.
func findPlainTools(ctx context.Context, family proxy.Family) (tools, error) {
	t, err := lookPaths(command(family))
	if err != nil {
		return tools{}, err
	}
	version, err := exec.CommandContext(ctx, t.main, "--version").Output()
	if err != nil {
		return tools{}, fmt.Errorf("%s --version: %w", t.main, err)
	}
	t.backend = backendOf(string(version))
	return t, nil
}

// backendOf reads the answer to --version. Versions before 1.8 name no backend: there was only one.
func backendOf(version string) Backend {
	if strings.Contains(version, "nf_tables") {
		return NFT
	}
	return Legacy
}

// NoKernel tells whether an error of the programs of backend nft says that the kernel has no nf_tables: what asks them
// then fails before it reads or changes anything.
func NoKernel(err error) bool {
	return err != nil && strings.Contains(err.Error(), "Could not fetch rule set generation id: Invalid argument")
}

func lookPaths(name string) (t tools, err error) {
	for _, p := range []struct {
		path *string
		name string
	}{{&t.main, name}, {&t.restore, name + "-restore"}, {&t.saver, name + "-save"}} {
		if *p.path, err = exec.LookPath(p.name); err != nil {
			return tools{}, fmt.Errorf("find %s: %w", p.name, err)
		}
	}
	return t, nil
}
