package manifest

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

// sink remembers what it is told, and counts how often.
type sink struct {
	lock    sync.Mutex
	objects map[string]string // by kind and name, what tells them apart
	calls   int
	changed chan struct{} // receives after each call, if nobody is late
}

func newSink() *sink { return &sink{objects: map[string]string{}, changed: make(chan struct{}, 1)} }

func (s *sink) note(change func()) {
	s.lock.Lock()
	defer s.lock.Unlock()
	change()
	s.calls++
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *sink) SetService(o *corev1.Service) {
	s.note(func() { s.objects["Service "+o.Namespace+"/"+o.Name] = o.Spec.ClusterIP })
}

func (s *sink) DeleteService(n proxy.ServiceName) {
	s.note(func() { delete(s.objects, "Service "+n.String()) })
}

func (s *sink) SetEndpointSlice(o *discoveryv1.EndpointSlice) {
	s.note(func() { s.objects["EndpointSlice "+o.Namespace+"/"+o.Name] = o.Endpoints[0].Addresses[0] })
}

func (s *sink) DeleteEndpointSlice(namespace, name string) {
	s.note(func() { delete(s.objects, "EndpointSlice "+namespace+"/"+name) })
}

func (s *sink) state() map[string]string {
	s.lock.Lock()
	defer s.lock.Unlock()
	return maps.Clone(s.objects)
}

// world is a directory, a source of it that scans when it is told to, and what it logged.
type world struct {
	t      *testing.T
	dir    string
	sink   *sink
	source *Source
	errors []string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), sink: newSink()}
	var err error
	if w.source, err = New(w.dir, w.sink); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) write(name, content string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.RemoveAll(filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) scan() {
	log := funcr.New(func(_, args string) {
		if strings.Contains(args, `"logger"`) || strings.Contains(args, `"error"=`) {
			w.errors = append(w.errors, args)
		}
	}, funcr.Options{})
	w.source.scan(klog.NewContext(w.t.Context(), log))
}

func (w *world) want(objects map[string]string) {
	w.t.Helper()
	w.scan()
	if diff := cmp.Diff(objects, w.sink.state()); diff != "" {
		w.t.Errorf("(-want +got):\n%s", diff)
	}
}

// wantErrors takes the errors logged so far, each of which must contain the parts.
func (w *world) wantErrors(parts ...string) {
	w.t.Helper()
	if len(w.errors) != 1 && len(parts) > 0 || len(w.errors) != 0 && len(parts) == 0 {
		w.t.Errorf("got errors %q, want those of %q", w.errors, parts)
	}
	for _, part := range parts {
		if !slices.ContainsFunc(w.errors, func(e string) bool { return strings.Contains(e, part) }) {
			w.t.Errorf("no error with %q in %q", part, w.errors)
		}
	}
	w.errors = nil
}

// named is the Service web with another name and address.
func named(name, address string) string {
	return strings.NewReplacer("name: web", "name: "+name, "10.96.0.10", address).Replace(web)
}

func TestObjectsFollowTheirFiles(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]string{})
	w.write("a.yaml", web+"---\n"+webSlice)
	w.write("ignored.txt", "x")
	w.write(".hidden.yaml", "x")
	w.write("a.yaml~", "x")
	w.want(map[string]string{"Service default/web": "10.96.0.10", "EndpointSlice default/web-1": "10.0.0.1"})
	calls := w.sink.calls
	w.want(w.sink.state())
	if w.sink.calls != calls {
		t.Errorf("%d calls for an unchanged directory", w.sink.calls-calls)
	}
	w.write("a.yaml", named("web", "10.96.0.11"))
	w.write("b.yml", named("other", "10.96.0.12"))
	w.want(map[string]string{"Service default/web": "10.96.0.11", "Service default/other": "10.96.0.12"})
	w.remove("a.yaml")
	w.want(map[string]string{"Service default/other": "10.96.0.12"})
	w.wantErrors()
}

func TestBadFileChangesNothingAndIsReportedOnce(t *testing.T) {
	w := newWorld(t)
	w.write("a.yaml", web)
	w.want(map[string]string{"Service default/web": "10.96.0.10"})
	w.write("a.yaml", named("web", "10.96.0.999")+"---\n"+webSlice)
	w.want(map[string]string{"Service default/web": "10.96.0.10"})
	w.wantErrors("a.yaml", "line 6", "spec.clusterIP")
	w.want(map[string]string{"Service default/web": "10.96.0.10"})
	w.wantErrors()
	w.write("b.yaml", named("other", "10.96.0.12"))
	w.want(map[string]string{"Service default/web": "10.96.0.10", "Service default/other": "10.96.0.12"})
	w.wantErrors()
	w.write("a.yaml", named("web", "10.96.0.13"))
	w.want(map[string]string{"Service default/web": "10.96.0.13", "Service default/other": "10.96.0.12"})
	w.wantErrors()
}

// A shell empties the file to which a slow command will write.
func TestFileThatIsEmptiedChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.write("a.yaml", web)
	w.want(map[string]string{"Service default/web": "10.96.0.10"})
	w.write("a.yaml", "")
	w.want(map[string]string{"Service default/web": "10.96.0.10"})
	w.wantErrors("a.yaml", "empty")
	w.want(map[string]string{"Service default/web": "10.96.0.10"})
	w.wantErrors()
	w.write("a.yaml", named("web", "10.96.0.11"))
	w.want(map[string]string{"Service default/web": "10.96.0.11"})
	w.write("a.yaml", "# nothing\n")
	w.want(map[string]string{})
	w.wantErrors()
}

func TestObjectInTwoFilesStaysWithItsOwner(t *testing.T) {
	w := newWorld(t)
	w.write("b.yaml", named("web", "10.96.0.2"))
	w.want(map[string]string{"Service default/web": "10.96.0.2"})
	w.write("a.yaml", "\n"+named("web", "10.96.0.1"))
	w.want(map[string]string{"Service default/web": "10.96.0.2"})
	w.wantErrors("a.yaml:2", "b.yaml:1", "default/web")
	w.want(map[string]string{"Service default/web": "10.96.0.2"})
	w.wantErrors()
	w.remove("b.yaml")
	w.want(map[string]string{"Service default/web": "10.96.0.1"})
	w.wantErrors()
}

func TestObjectsMayChangePlacesBetweenFiles(t *testing.T) {
	w := newWorld(t)
	one, two := named("one", "10.96.0.1"), named("two", "10.96.0.2")
	both := map[string]string{"Service default/one": "10.96.0.1", "Service default/two": "10.96.0.2"}
	w.write("a.yaml", one)
	w.write("b.yaml", two)
	w.want(both)
	w.write("a.yaml", two)
	w.write("b.yaml", one)
	w.want(both)
	w.wantErrors()
}

func TestUnreadableDirectoryChangesNothing(t *testing.T) {
	w := newWorld(t)
	w.write("a.yaml", web)
	w.want(map[string]string{"Service default/web": "10.96.0.10"})
	w.remove("")
	w.want(map[string]string{"Service default/web": "10.96.0.10"})
	w.wantErrors("no such file or directory")
	w.want(map[string]string{"Service default/web": "10.96.0.10"})
	w.wantErrors()
}

func TestMissingDirectoryIsAnError(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "missing"), file} {
		if _, err := New(path, newSink()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

// TestChangesAreSeenLive goes through the ways in which files are replaced.
func TestChangesAreSeenLive(t *testing.T) {
	w := newWorld(t)
	mounted := filepath.Join(w.dir, "..data")
	configMap := func(version, content string) {
		t.Helper()
		data := filepath.Join(w.dir, "..v"+version)
		for _, err := range []error{
			os.Mkdir(data, 0o755),
			os.WriteFile(filepath.Join(data, "mounted.yaml"), []byte(content), 0o644),
			os.Symlink("..v"+version, mounted+"_tmp"),
			os.Rename(mounted+"_tmp", mounted),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	configMap("1", named("mounted", "10.96.0.1"))
	if err := os.Symlink("..data/mounted.yaml", filepath.Join(w.dir, "mounted.yaml")); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { w.source.Run(ctx) })
	defer run.Wait()
	defer cancel()
	<-w.source.Synced()
	until := func(objects map[string]string) {
		t.Helper()
		for !cmp.Equal(objects, w.sink.state()) {
			<-w.sink.changed
		}
	}
	until(map[string]string{"Service default/mounted": "10.96.0.1"})

	configMap("2", named("mounted", "10.96.0.2"))
	until(map[string]string{"Service default/mounted": "10.96.0.2"})

	w.write("a.yaml", named("a", "10.96.1.1"))
	until(map[string]string{"Service default/mounted": "10.96.0.2", "Service default/a": "10.96.1.1"})

	w.write("a.yaml.swp", named("a", "10.96.1.2"))
	if err := os.Rename(filepath.Join(w.dir, "a.yaml.swp"), filepath.Join(w.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	until(map[string]string{"Service default/mounted": "10.96.0.2", "Service default/a": "10.96.1.2"})

	w.remove("a.yaml")
	until(map[string]string{"Service default/mounted": "10.96.0.2"})
}
