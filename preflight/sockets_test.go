package preflight

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/proxy"
)

func TestListenersAreReadWithTheirOwners(t *testing.T) {
	proc := t.TempDir()
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for name, content := range map[string]string{
		"thread-self/net/tcp": head +
			"   0: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000000000000000 100 0 0 10 0\n" +
			"   1: 0200000A:7530 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 112 1 0000000000000000 100 0 0 10 0\n" +
			"   2: 0200000A:7531 0300000A:0050 01 00000000:00000000 00:00000000 00000000     0        0 113 1 0000000000000000 100 0 0 10 0\n",
		"thread-self/net/tcp6": head +
			"   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 114 1 0\n" +
			"   1: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 115 1 0\n" +
			"   2: B80D0120000000000000000001000000:0052 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 116 1 0\n",
		"thread-self/net/udp": head + "nonsense\n  1: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 117 2 0 0\n",
		"42/comm":             "server\n",
	} {
		path := filepath.Join(proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(proc, "42", "fd"), 0o700); err != nil {
		t.Fatal(err)
	}
	for fd, target := range map[string]string{"0": "/dev/null", "3": "socket:[112]", "4": "socket:[999]"} {
		if err := os.Symlink(target, filepath.Join(proc, "42", "fd", fd)); err != nil {
			t.Fatal(err)
		}
	}
	want := []Listener{
		{proxy.TCP, "127.0.0.1", 10249, true, ""},
		{proxy.TCP, "10.0.0.2", 30000, false, "server"},
		{proxy.TCP, "", 80, false, ""},
		{proxy.TCP, "::1", 81, true, ""},
		{proxy.TCP, "2001:db8::1", 82, false, ""},
		{proxy.UDP, "", 53, false, ""},
	}
	if diff := cmp.Diff(want, listening(proc)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
