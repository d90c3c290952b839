// Package manifest serves Services and EndpointSlices from a directory of YAML and JSON files instead
// of a cluster. It does what an API server would: decode strictly, set defaults, refuse what cannot
// be served, and say where the mistake is. What files say may change at any time; a file with a
// mistake changes nothing.
package manifest

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/klog/v2"

	"github.com/sluice-proxy/sluice/proxy"
)

const (
	// burst is how long to wait after a change for those that belong to it: editors and kubelet
	// replace files in several steps.
	burst = 100 * time.Millisecond

	// poll is how often to look without being told to: for file systems and kernels that cannot tell,
	// and for a directory that has been replaced.
	poll = 5 * time.Second
)

// Sink is told of Services and EndpointSlices, from one goroutine. It must not change what it is given.
type Sink interface {
	SetService(*corev1.Service)
	DeleteService(proxy.ServiceName)
	SetEndpointSlice(*discoveryv1.EndpointSlice)
	DeleteEndpointSlice(namespace, name string)
}

// Source keeps a sink up to date with a directory.
type Source struct {
	dir    string
	sink   Sink
	synced chan struct{}

	// The rest belongs to the goroutine of Run.
	problem   string // why the directory could not be read the last time
	files     map[string]*file
	told      map[key]object  // what the sink knows
	conflicts map[string]bool // those that have been reported and still exist
}

// file is a file of the directory.
type file struct {
	content string
	problem string   // why it could not be read the last time
	objects []object // of the latest content that was right
}

// New makes a Source for a directory that exists.
func New(dir string, sink Sink) (*Source, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("manifest directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("manifest directory: %s is not a directory", dir)
	}
	return &Source{
		dir:       dir,
		sink:      sink,
		synced:    make(chan struct{}),
		files:     map[string]*file{},
		told:      map[key]object{},
		conflicts: map[string]bool{},
	}, nil
}

// Synced is closed when the sink has been told of all that the directory held at the start.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// Run watches the directory until ctx ends. It may be called once.
func (s *Source) Run(ctx context.Context) {
	log := klog.FromContext(ctx)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log.Error(err, "Changes of the manifest directory are seen late", "dir", s.dir, "poll", poll)
		watcher = &fsnotify.Watcher{} // its channels never deliver
	} else {
		defer func() { _ = watcher.Close() }()
		_ = watcher.Add(s.dir) // if that fails, the next poll tries again
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	s.scan(ctx)
	close(s.synced)
	for {
		select {
		case <-ctx.Done():
			return
		case <-watcher.Events:
			drain(ctx, watcher)
		case err := <-watcher.Errors:
			log.V(2).Info("Manifest directory read again after a watch error", "reason", err)
		case <-ticker.C:
			// The path may lead to another directory by now.
			if err == nil {
				_ = watcher.Remove(s.dir)
				_ = watcher.Add(s.dir)
			}
		}
		s.scan(ctx)
	}
}

// drain returns when the burst of changes that has begun should be over.
func drain(ctx context.Context, watcher *fsnotify.Watcher) {
	over := time.After(burst)
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-watcher.Events:
		}
	}
}
