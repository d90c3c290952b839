package ipvs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"github.com/sluice-proxy/sluice/conntrack/sysctl"
	"github.com/sluice-proxy/sluice/ipvs/kernel"
	"github.com/sluice-proxy/sluice/proxy"
)

// vs are the kernel's parameters of IPVS in a folder of a test.
type vs struct {
	t        *testing.T
	tree     sysctl.Tree
	readOnly bool
}

func newVS(t *testing.T) *vs {
	v := &vs{t: t}
	v.tree = sysctl.Tree{Root: t.TempDir(), WriteFile: func(name string, data []byte, perm os.FileMode) error {
		if v.readOnly {
			return syscall.EROFS
		}
		return os.WriteFile(name, data, perm)
	}}
	for name, value := range map[string]string{"conntrack": "0", "expire_nodest_conn": "0", "expire_quiescent_template": "0", "run_estimation": "1"} {
		v.write(name, value)
	}
	return v
}

func (v *vs) file(name string) string {
	return filepath.Join(v.tree.Root, "proc/sys/net/ipv4/vs", name)
}

func (v *vs) write(name, value string) {
	v.t.Helper()
	if err := os.MkdirAll(filepath.Dir(v.file(name)), 0o755); err != nil {
		v.t.Fatal(err)
	}
	if err := os.WriteFile(v.file(name), []byte(value+"\n"), 0o600); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vs) want(name, value string) {
	v.t.Helper()
	text, err := os.ReadFile(v.file(name))
	if got := strings.TrimSpace(string(text)); err != nil || got != value {
		v.t.Errorf("%s is %q, %v; want %s", name, got, err, value)
	}
}

// TestParametersThatOthersSetBackAreSetAgain also has others change the timeouts, and the module be loaded anew.
func TestParametersThatOthersSetBackAreSetAgain(t *testing.T) {
	v := newVS(t)
	m := NewMode(Config{Sysctls: v.tree, CompatInterface: CompatOff}).(mode)
	servers, look := kernel.NewIPVS(proxy.IPv4), kernel.NewFake()
	if err := m.Prepare(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	v.want("conntrack", "1")
	if w := m.watchSettings(proxy.IPv6)(); w != nil {
		t.Error("both families look")
	}
	w := m.watchSettings(proxy.IPv4)()
	defer w.close()
	wrong := func(want string) {
		t.Helper()
		reason, err := w.wrong(t.Context(), look)
		if err != nil || want == "" && reason != "" || !strings.Contains(reason, want) {
			t.Errorf("got %q, %v; want %q", reason, err, want)
		}
	}
	wrong("")
	v.write("expire_nodest_conn", "0")
	v.write("run_estimation", "1")
	wrong("/proc/sys/net/ipv4/vs/expire_nodest_conn is 0 instead of 1")
	if err := m.set(t.Context(), proxy.IPv4, servers); err != nil {
		t.Fatal(err)
	}
	wrong("")
	v.want("expire_nodest_conn", "1")
	v.want("run_estimation", "0")

	look.OtherTimeouts = true
	wrong("timeouts")
	look.OtherTimeouts = false

	if err := os.WriteFile(v.file("conntrack"), nil, 0o600); err != nil { // reading it fails
		t.Fatal(err)
	}
	wrong("")
	v.write("conntrack", "0")
	wrong("") // it is opened anew
	wrong("conntrack is 0 instead of 1")
}

// TestParameterThatCannotBeSetIsNamedOnce keeps the mode serving where nobody may write parameters, unless it has just begun.
func TestParameterThatCannotBeSetIsNamedOnce(t *testing.T) {
	v := newVS(t)
	m := NewMode(Config{Sysctls: v.tree, CompatInterface: CompatOff}).(mode)
	v.readOnly = true
	if err := m.Prepare(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "vs/conntrack from 0 to 1") || !strings.Contains(err.Error(), "vs/run_estimation from 1 to 0") {
		t.Errorf("a start says %v, want an error that names all parameters", err)
	}
	v.readOnly = false
	if err := m.Prepare(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	w := m.watchSettings(proxy.IPv4)()
	defer w.close()
	v.readOnly = true
	var log bytes.Buffer
	ctx := klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log))))
	doubts := 0
	for _, value := range []string{"0", "0", "0", "2", "2"} {
		v.write("conntrack", value)
		if reason, _ := w.wrong(ctx, kernel.NewFake()); reason != "" {
			doubts++
		}
		for _, f := range proxy.Families { // a repair
			if err := m.set(ctx, f, kernel.NewIPVS(f)); err != nil {
				t.Errorf("a repair fails: %v", err)
			}
		}
	}
	if n := strings.Count(log.String(), "Serving with a kernel parameter that is wrong"); n != 2 || doubts != 2 {
		t.Errorf("%d complaints and %d doubts about two values, want 2 and 2:\n%s", n, doubts, &log)
	}
	v.readOnly = false
	if err := m.set(ctx, proxy.IPv4, kernel.NewIPVS(proxy.IPv4)); err != nil {
		t.Fatal(err)
	}
	v.want("conntrack", "1")
}
