package kubeproxy

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestKubeProxiesOfThisNetworkAreFound(t *testing.T) {
	proc := t.TempDir()
	link := func(to, at string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(proc, at)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(proc, at)); err != nil {
			t.Fatal(err)
		}
	}
	write := func(text, at string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(proc, at)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, at), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	process := func(number, comm, state, namespace string) {
		t.Helper()
		write(comm+"\n", number+"/comm")
		write(number+" ("+comm+") "+state+" 1 1", number+"/stat")
		if namespace != "" {
			link(namespace, number+"/ns/net")
		}
	}
	link("net:[1]", "thread-self/ns/net")
	process("10", "kube-proxy", "S", "net:[1]")
	process("11", "kube-proxy", "S", "net:[2]")
	process("12", "kube-proxy", "Z", "net:[1]") // ended
	process("13", "kube-proxy", "S", "")        // ends just now
	process("14", "kubelet", "S", "net:[1]")
	process("15", "kube-proxy-x", "S", "net:[1]")

	want := func(running []int, all bool) {
		t.Helper()
		got, gotAll, err := processes(proc)
		if err != nil || !slices.Equal(got, running) || gotAll != all {
			t.Errorf("got %v, all %t, %v; want %v, all %t", got, gotAll, err, running, all)
		}
	}
	want([]int{10}, false)
	process("2", "kthreadd", "S", "net:[1]")
	want([]int{10}, true)
}
