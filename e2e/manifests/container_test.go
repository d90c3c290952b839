package manifests

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/sluice-proxy/sluice/e2e/process"
	"github.com/sluice-proxy/sluice/e2e/suite"
	"github.com/sluice-proxy/sluice/proxy/proxytest/lab"
)

const nodeName = "node"

// confine makes the mounts what they are in a container with readOnlyRootFilesystem: all are read-only, /proc/sys
// and /sys too, but for the lock of iptables, which is mounted from the host.
const confine = `set -eu
for bind in $BINDS; do mount --bind "${bind%%:*}" "${bind#*:}"; done
touch /run/xtables.lock
mount --bind /run/xtables.lock /run/xtables.lock
mount --bind /proc/sys /proc/sys
cut -d' ' -f2 /proc/self/mounts | while read -r point; do
	case " $BINDS " in *":$point "*) continue ;; esac
	case $point in
	/run/xtables.lock | /proc | /dev | /dev/*) ;;
	*) mount -o remount,bind,ro "$point" 2>/dev/null || true ;;
	esac
done
if ( : > "$1/writable" ) 2>/dev/null; then echo "the root is not read-only"; exit 90; fi
if ( : > /proc/sys/net/ipv4/ip_forward ) 2>/dev/null; then echo "/proc/sys is not read-only"; exit 90; fi
shift
exec "$@"`

// container runs, as far as its program can tell, as kubelet would run it.
type container struct {
	spec    corev1.Container
	program string            // in place of the image's; empty is Sluice
	env     map[string]string // what kubelet resolves the variables of spec to, and more variables
	args    []string          // after those of spec
	dir     string            // where the ConfigMap is mounted
	binds   map[string]string // folders of the node that are mounted and can be written, by where
}

// with is the container with more arguments.
func (c container) with(args ...string) container {
	c.args = append(slices.Clone(c.args), args...)
	return c
}

// command is the program with its arguments.
func (c container) command(t *testing.T) []string {
	t.Helper()
	var pairs []string
	for name, value := range c.env {
		pairs = append(pairs, "$("+name+")", value)
	}
	for _, m := range c.spec.VolumeMounts {
		if c.dir != "" && (m.Name == "config" || m.Name == "kube-proxy") {
			pairs = append(pairs, m.MountPath, c.dir)
		}
	}
	expand := strings.NewReplacer(pairs...)
	command := []string{"env"}
	for name, value := range c.env {
		command = append(command, name+"="+value)
	}
	command = append(command, cmp.Or(c.program, sluiceBinary))
	said := slices.Clone(c.spec.Args)
	if len(c.spec.Command) > 0 {
		said = append(slices.Clone(c.spec.Command[1:]), said...)
	}
	for _, arg := range append(said, c.args...) {
		command = append(command, expand.Replace(arg))
	}
	if i := slices.IndexFunc(command, func(arg string) bool { return strings.Contains(arg, "$(") }); i >= 0 {
		t.Fatalf("nothing says what %q of container %s stands for", command[i], c.spec.Name)
	}
	root := t.TempDir()
	binds := ""
	for at, folder := range c.binds {
		at = root + at
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		binds += folder + ":" + at + " "
	}
	for i := range command {
		command[i] = strings.ReplaceAll(command[i], "=/host", "="+root+"/host")
	}
	if !ptr.Deref(c.spec.SecurityContext.Privileged, false) && *c.spec.SecurityContext.ReadOnlyRootFilesystem {
		command = append([]string{"env", "BINDS=" + binds, "unshare", "--mount", "--propagation", "private", "sh", "-c", confine, "sh", t.TempDir()}, c.confined(t, command)...)
	}
	return command
}

// confined takes away what the security context takes away.
func (c container) confined(t *testing.T, command []string) []string {
	t.Helper()
	s := c.spec.SecurityContext
	if *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Fatalf("container %s may do more than its capabilities say: %v", c.spec.Name, s)
	}
	bound := "-all"
	for _, capability := range s.Capabilities.Add {
		bound += ",+" + strings.ToLower(string(capability))
	}
	return append([]string{"setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=" + bound}, command...)
}

// start starts the container in a host's network.
func (c container) start(t *testing.T, host *lab.Host) *running {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	command := c.command(t)
	p, err := process.Start(host.Namespace, log, command[0], command[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Process: p, spec: c.spec, host: host, file: log.Name()}
	t.Cleanup(func() {
		p.Kill()
		_ = log.Close()
		if t.Failed() {
			t.Logf("log of container %s, run as %q:\n%s", c.spec.Name, command, r.log(t))
		}
	})
	return r
}

// running is a container that was started.
type running struct {
	*process.Process
	spec corev1.Container
	host *lab.Host
	file string // with what it said
}

func (r *running) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(r.file)
	if err != nil {
		t.Error(err)
	}
	suite.WantNoRace(t, "log of container "+r.spec.Name, text)
	return string(text)
}

// wantNoComplaints checks that the log has no errors.
func (r *running) wantNoComplaints(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(r.log(t)) {
		if strings.HasPrefix(line, "E") {
			t.Errorf("sluice complains: %s", line)
		}
	}
}

// stop ends the container as kubelet does.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if err := r.Stop(); err != nil {
		t.Errorf("container %s did not end well after SIGTERM: %v", r.spec.Name, err)
	}
}

// ends waits until the container has ended and gives what it said.
func (r *running) ends(t *testing.T) string {
	t.Helper()
	select {
	case <-r.Done():
	case <-time.After(suite.Patience):
		t.Fatalf("container %s did not end after %v", r.spec.Name, suite.Patience)
	}
	return r.log(t)
}

// succeeds is ends, and the exit code must be 0.
func (r *running) succeeds(t *testing.T) {
	t.Helper()
	if text := r.ends(t); r.Err() != nil {
		t.Fatalf("container %s: %v\n%s", r.spec.Name, r.Err(), text)
	}
}

// fails is ends, and the exit code must not be 0.
func (r *running) fails(t *testing.T) string {
	t.Helper()
	text := r.ends(t)
	if r.Err() == nil {
		t.Fatalf("container %s ended well:\n%s", r.spec.Name, text)
	}
	return text
}

// awaitReady waits until kubelet would call the container started, alive and ready.
func (r *running) awaitReady(t *testing.T) {
	t.Helper()
	for _, p := range []*corev1.Probe{r.spec.StartupProbe, r.spec.LivenessProbe, r.spec.ReadinessProbe} {
		eventually(t, "GET "+p.HTTPGet.Path, func() error {
			select {
			case <-r.Done():
				return fmt.Errorf("container %s ended: %w", r.spec.Name, r.Err())
			default:
			}
			return r.passes(p)
		})
	}
}

// passes asks as kubelet does.
func (r *running) passes(p *corev1.Probe) error {
	url := fmt.Sprintf("http://%s%s", net.JoinHostPort(p.HTTPGet.Host, p.HTTPGet.Port.String()), p.HTTPGet.Path)
	client := clientOn(r.host)
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

// clientOn is an HTTP client on a host.
var clientOn = suite.Client

var eventually = suite.Eventually

// contains is an error if a text lacks a part.
func contains(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("no %q in:\n%s", part, text)
	}
	return nil
}
