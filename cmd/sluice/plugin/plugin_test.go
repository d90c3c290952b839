package plugin

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// apiServer knows pods, and runs what is asked of them: it echoes the command, writes to both outputs and ends with a code.
type apiServer struct {
	t    *testing.T
	pods []corev1.Pod
	code string // exit code; empty is success
	old  bool   // does not take WebSockets

	mu  sync.Mutex
	ran []url.Values // queries of exec
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // api/v1/namespaces/NS/pods[/NAME[/exec]]
	switch {
	case r.Header.Get("Authorization") != "Bearer let-me-in":
		s.fail(w, http.StatusForbidden, metav1.StatusReasonForbidden)
	case len(parts) == 5:
		s.list(w, parts[3], r.URL.Query())
	case len(parts) == 6:
		s.get(w, parts[3], parts[5])
	case len(parts) == 7 && parts[6] == "exec":
		s.exec(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *apiServer) answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(value); err != nil {
		s.t.Error(err)
	}
}

func (s *apiServer) fail(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	s.answer(w, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason),
	})
}

func (s *apiServer) list(w http.ResponseWriter, namespace string, query url.Values) {
	selector, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		s.t.Error(err)
	}
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}}
	for _, p := range s.pods {
		phase := strings.TrimPrefix(query.Get("fieldSelector"), "status.phase=")
		if p.Namespace == namespace && selector.Matches(labels.Set(p.Labels)) && string(p.Status.Phase) == phase {
			list.Items = append(list.Items, p)
		}
	}
	s.answer(w, list)
}

func (s *apiServer) get(w http.ResponseWriter, namespace, name string) {
	for _, p := range s.pods {
		if p.Namespace == namespace && p.Name == name {
			p.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
			s.answer(w, p)
			return
		}
	}
	s.fail(w, http.StatusNotFound, metav1.StatusReasonNotFound)
}

// exec speaks the protocol of the day, or the one before it.
func (s *apiServer) exec(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.ran = append(s.ran, r.URL.Query())
	s.mu.Unlock()
	status := metav1.Status{Status: metav1.StatusSuccess}
	if s.code != "" {
		status = metav1.Status{
			Status: metav1.StatusFailure, Reason: "NonZeroExitCode",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: s.code}}},
		}
	}
	end, err := json.Marshal(status)
	if err != nil {
		s.t.Error(err)
	}
	said := strings.Join(r.URL.Query()["command"], " ") + "\n"
	if r.Header.Get("Upgrade") == "websocket" && !s.old {
		s.sockets(w, r, []byte(said), end)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
		return
	}
	s.spdy(w, r, []byte(said), end)
}

func (s *apiServer) sockets(w http.ResponseWriter, r *http.Request, said, end []byte) {
	upgrader := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	for stream, text := range [][]byte{1: said, 2: []byte("a note\n"), 3: end} {
		if err := conn.WriteMessage(websocket.BinaryMessage, append([]byte{byte(stream)}, text...)); stream > 0 && err != nil {
			s.t.Error(err)
		}
	}
	_ = conn.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")) // the client may be gone
	_ = conn.Close()
}

func (s *apiServer) spdy(w http.ResponseWriter, r *http.Request, said, end []byte) {
	streams := make(chan httpstream.Stream, 8)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		streams <- stream
		return nil
	})
	if conn == nil {
		return
	}
	for range 3 {
		stream := <-streams
		text := map[string][]byte{"stdout": said, "stderr": []byte("a note\n"), "error": end}[stream.Headers().Get("streamType")]
		if _, err := stream.Write(text); err != nil {
			s.t.Error(err)
		}
		_ = stream.Close()
	}
	<-conn.CloseChan()
}

// pod is a running one, of Sluice if its labels say so.
func pod(namespace, name, node string, labels map[string]string, ips ...string) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "side"}, {Name: "sluice"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return p
}

var ours = map[string]string{"app.kubernetes.io/name": "sluice"}

func newServer(t *testing.T) *apiServer {
	s := &apiServer{t: t}
	s.pods = []corev1.Pod{
		pod("kube-system", "sluice-a", "node-a", ours), pod("kube-system", "sluice-b", "node-b", ours), pod("kube-system", "dns", "node-c", nil),
		pod("shop", "web-0", "node-b", nil, "10.1.0.9", "fd00::9"), pod("shop", "late", "", nil), pod("infra", "sluice-x", "node-x", ours),
	}
	return s
}

// run runs kubectl sluice against the server.
func (s *apiServer) run(args ...string) (stdout, stderr string, err error) {
	s.t.Helper()
	server := httptest.NewTLSServer(s) // a token is not sent without
	defer server.Close()
	kubeconfig := filepath.Join(s.t.TempDir(), "config")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "none",
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority-data": %q}}], "users": [{"name": "u", "user": {"token": "let-me-in"}}],
		"contexts": [{"name": "good", "context": {"cluster": "c", "user": "u"}}]}`, server.URL, base64.StdEncoding.EncodeToString(ca))
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	var out, notes bytes.Buffer
	cmd := NewCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&notes)
	cmd.SetArgs(append([]string{"--kubeconfig", kubeconfig, "--context=good"}, args...))
	err = cmd.ExecuteContext(s.t.Context())
	return out.String(), notes.String(), err
}

func TestCommandsRunInThePodOfTheNode(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		pod  string // where it runs
		says string
	}{
		"by node":           {[]string{"--node", "node-a", "explain", "shop/web", "-o", "json"}, "sluice-a", "sluice explain shop/web -o json"},
		"by pod":            {[]string{"explain", "--from", "pod:shop/web-0", "--to=10.96.0.80:80/tcp"}, "sluice-b", "sluice explain --from 10.1.0.9 --to=10.96.0.80:80/tcp"},
		"by pod, IPv6":      {[]string{"trace", "--from=pod:shop/web-0", "--to", "[fd00::80]:80"}, "sluice-b", "sluice trace --from=fd00::9 --to [fd00::80]:80"},
		"by both":           {[]string{"--node=node-a", "explain", "--from=pod:shop/web-0", "--to=10.96.0.80:80"}, "sluice-a", "sluice explain --from=10.1.0.9 --to=10.96.0.80:80"},
		"another namespace": {[]string{"-n", "infra", "--node=node-x", "diff", "--all"}, "sluice-x", "sluice diff --all"},
		"flags of its own":  {[]string{"--node=node-a", "check", "--node"}, "sluice-a", "sluice check --node"},
	} {
		for protocol, old := range map[string]bool{"WebSocket": false, "SPDY": true} {
			t.Run(name+", "+protocol, func(t *testing.T) {
				s := newServer(t)
				s.old = old
				stdout, stderr, err := s.run(test.args...)
				if err != nil || stdout != test.says+"\n" || stderr != "a note\n" {
					t.Fatalf("%v: %q, %q", err, stdout, stderr)
				}
				if q := s.ran[len(s.ran)-1]; q.Get("container") != "sluice" || q.Get("stdin") != "" || q.Get("tty") != "" {
					t.Errorf("ran %v", q)
				}
			})
		}
	}
}

func TestExitCodesAreHandedOn(t *testing.T) {
	for _, old := range []bool{false, true} {
		s := newServer(t)
		s.code, s.old = "2", old
		stdout, _, err := s.run("--node=node-a", "diff")
		if code, ok := errors.AsType[ExitCode](err); !ok || code != 2 || stdout != "sluice diff\n" {
			t.Errorf("%v: %q", err, stdout)
		}
	}
}

func TestKubeProxysOwnLabelsAreTakenWhereOnlyTheImageWasChanged(t *testing.T) {
	s := newServer(t)
	s.pods = []corev1.Pod{pod("kube-system", "kube-proxy-a", "node-a", map[string]string{"k8s-app": "kube-proxy"})}
	s.pods[0].Spec.Containers[1].Name = "kube-proxy"
	if _, _, err := s.run("--node=node-a", "explain", "a/b"); err != nil || s.ran[0].Get("container") != "kube-proxy" {
		t.Errorf("%v: %v", err, s.ran)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no node":      {[]string{"explain", "shop/web"}, "say with --node which node is asked, or with --from pod:NAMESPACE/NAME; Sluice runs on node-a, node-b"},
		"other node":   {[]string{"--node=node-c", "explain", "shop/web"}, "no Sluice runs on node node-c; it runs on node-a, node-b"},
		"no Sluice":    {[]string{"-n=shop", "--node=node-c", "explain", "a/b"}, "no pod of Sluice runs in namespace shop (labels app.kubernetes.io/name=sluice or k8s-app=kube-proxy)"},
		"labels":       {[]string{"-l=a=b", "--node=node-a", "explain", "a/b"}, "(labels a=b)"},
		"no pod":       {[]string{"explain", "--from=pod:shop/nobody", "--to=10.0.0.1:80"}, "--from: NotFound"},
		"no namespace": {[]string{"explain", "--from=pod:nobody", "--to=10.0.0.1:80"}, `"pod:nobody" is not pod:NAMESPACE/NAME`},
		"pod waits":    {[]string{"explain", "--from=pod:shop/late", "--to=10.0.0.1:80"}, "pod shop/late has no node"},
		"bundle here":  {[]string{"--node=node-a", "explain", "--bundle", "x.tar.gz"}, "--bundle reads what is on this machine, so that no node is asked: run sluice explain"},
		"nothing":      {nil, "requires at least 1 arg"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := newServer(t).run(test.args...); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// There is nothing to write to in the pod.
func TestABundleIsWrittenHere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	s := newServer(t)
	_, stderr, err := s.run("--node=node-a", "bundle", file)
	text, _ := os.ReadFile(file)
	if err != nil || string(text) != "sluice bundle -\n" || !strings.Contains(stderr, "wrote "+file) {
		t.Errorf("%v: %q, %q", err, text, stderr)
	}
	if _, _, err := s.run("--node=node-a", "bundle", file); err == nil || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("wrote over a file: %v", err)
	}
	if stdout, _, err := s.run("--node=node-a", "bundle", "-"); err != nil || stdout != "sluice bundle -\n" {
		t.Errorf("%v: %q", err, stdout)
	}
	s.code = "1"
	failed := filepath.Join(t.TempDir(), "c.tar.gz")
	if _, _, err := s.run("--node=node-a", "bundle", failed); err == nil {
		t.Error("the command failed, and that is no error")
	}
	if _, err := os.Stat(failed); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a bundle is there: %v", err)
	}
}

func TestThePluginIsKnownByItsName(t *testing.T) {
	for program, want := range map[string]bool{"/usr/local/bin/kubectl-sluice": true, "kubectl-sluice": true, "/usr/bin/sluice": false, "kubectl-sluice/sluice": false} {
		if Called(program) != want {
			t.Errorf("%s: %t", program, !want)
		}
	}
}
