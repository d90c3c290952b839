package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// repairLimit is how long a proxy may take to notice that its rules are gone.
const repairLimit = time.Minute

// timeRepair takes the rules away and waits until Services all over the cluster are served again. If they are not, it
// puts the rules back: connections are timed through them.
func (t *trial) timeRepair(ctx context.Context, r *result) error {
	restore, err := t.cfg.Mode.lose(t.node, t.backend, filepath.Join(filepath.Dir(t.log.Name()), "lost"))
	if err != nil {
		return err
	}
	begin := time.Now()
	limited, cancel := context.WithTimeout(ctx, repairLimit)
	defer cancel()
	for _, to := range t.probes() {
		err := t.await(limited, to, startPace, answered)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return restore()
		}
		if err != nil {
			return err
		}
	}
	r.repair = time.Since(begin)
	return t.calm(ctx)
}

// flushNAT empties all chains of table nat, which stay. It keeps their rules in a file.
func flushNAT(n *node, backend, file string) (restore func() error, err error) {
	rules, err := n.Node.Run("iptables-"+backend+"-save", "-t", "nat")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		return nil, err
	}
	if _, err := n.Node.Run("iptables-"+backend, "-w", "60", "-t", "nat", "-F"); err != nil {
		return nil, fmt.Errorf("flush table nat: %w", err)
	}
	return func() error {
		_, err := n.Node.Run("iptables-"+backend+"-restore", "-w", "60", file)
		return err
	}, nil
}

// clearServers empties IPVS. It keeps what was there in a file.
func clearServers(n *node, _, file string) (restore func() error, err error) {
	servers, err := n.Node.Run("ipvsadm", "-S", "-n")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(servers), 0o600); err != nil {
		return nil, err
	}
	if _, err := n.Node.Run("ipvsadm", "-C"); err != nil {
		return nil, err
	}
	return func() error {
		_, err := n.Node.Run("sh", "-c", `ipvsadm -R <"$1"`, "sh", file)
		return err
	}, nil
}

// flushRuleset empties all of nf_tables, as scripts of firewalls do. It keeps what was there in a file.
func flushRuleset(n *node, _, file string) (restore func() error, err error) {
	rules, err := n.Node.Run("nft", "list", "ruleset")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		return nil, err
	}
	if _, err := n.Node.Run("nft", "flush", "ruleset"); err != nil {
		return nil, err
	}
	return func() error {
		_, err := n.Node.Run("nft", "-f", file)
		return err
	}, nil
}
