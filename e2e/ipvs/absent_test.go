package ipvs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/e2e/vm"
	"github.com/sluice-proxy/sluice/ipvs"
	"github.com/sluice-proxy/sluice/nftables"
	"github.com/sluice-proxy/sluice/proxy"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

// TestKernelAbsentModules takes modules out of the kernel, if they are there, and lets nothing bring them back: the error of a start
// names what is missing. It comes first: what other tests have used the kernel may take long to let go.
func TestKernelAbsentModules(t *testing.T) {
	if !vm.Here() {
		t.Skip("the modules of this machine are others' as well; those of e2e/vm are not")
	}
	l := lab.Start(t, lab.Config{})
	s := &site{Lab: l, t: t, family: proxy.IPv4, mode: ipvs.NewMode(ipvs.Config{})}
	s.run("modprobe nf_tables")
	noMoreModules(t)
	supported := func(mode proxy.Mode) error {
		return s.Node.Do(func() error { return mode.Supported(t.Context(), proxy.IPv4) })
	}
	s.unload("ip_vs")
	const noIPVS, noTables = "the kernel has no IPVS: module ip_vs is not loaded and cannot be", "the kernel has no nf_tables: module nf_tables is not loaded and cannot be"
	if err := supported(s.mode); err == nil || !strings.Contains(err.Error(), noIPVS) {
		t.Errorf("without IPVS: %v, want %q", err, noIPVS)
	}
	s.unload("nf_tables")
	for _, mode := range []proxy.Mode{s.mode, nftables.NewMode(nftables.Config{})} {
		if err := supported(mode); err == nil || !strings.Contains(err.Error(), noTables) {
			t.Errorf("mode %s without nf_tables: %v, want %q", mode.Name(), err, noTables)
		}
	}
	said, err := s.Node.Run(*sluice, "--mode=ipvs", "--manifest-dir="+t.TempDir(), "--hostname-override=node")
	if err == nil || !strings.Contains(err.Error()+said, "mode ipvs cannot work on this node: "+noTables) {
		t.Errorf("the program says %v: %s", err, said)
	}
}

// noMoreModules has neither the kernel nor a program load modules, until the test ends.
func noMoreModules(t *testing.T) {
	t.Helper()
	const loader = "/proc/sys/kernel/modprobe"
	was, err := os.ReadFile(loader)
	if err == nil {
		err = os.WriteFile(loader, []byte("/bin/false"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(loader, was, 0); err != nil {
			t.Fatal(err)
		}
	})
	dir := t.TempDir()
	if err := os.Symlink("/bin/false", filepath.Join(dir, "modprobe")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// unload takes a module out of the kernel, and before those that use it.
func (s *site) unload(name string) {
	s.t.Helper()
	var err error
	defer func() {
		if err != nil {
			s.t.Log(err)
		}
	}()
	s.eventually("module "+name+" goes", func() bool { err = unload(name); return err == nil })
}

func unload(name string) error {
	users, err := os.ReadDir(filepath.Join("/sys/module", name, "holders"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, u := range users {
		if err := unload(u.Name()); err != nil {
			return err
		}
	}
	if err := unix.DeleteModule(name, unix.O_NONBLOCK); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unload %s: %w", name, err)
	}
	return nil
}
