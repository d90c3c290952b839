package config

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"k8s.io/klog/v2"
)

// lookInterval is how often the file is looked at. kubelet needs about a minute to bring a changed ConfigMap here.
const lookInterval = 5 * time.Second

// File is the configuration file as it was when it was read.
type File struct {
	path    string
	content []byte
	usable  func(content []byte) error // why a start with that content would fail
}

// Changed returns an error when the file has other content that could be used, and nil when ctx ends. It reads the file
// again and again rather than waiting for a message from the kernel: a ConfigMap is a link to a link that is replaced.
//
// What could not be used stays without effect, so that a mistake in it does not stop the proxies of all nodes.
func (f *File) Changed(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	judged, last := f.content, f.content
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		content, err := os.ReadFile(f.path)
		if err != nil {
			continue // it is being replaced
		}
		whole := bytes.Equal(content, last) // rather than half written
		last = content
		if !whole || bytes.Equal(content, judged) {
			continue
		}
		judged = content
		if bytes.Equal(content, f.content) {
			continue
		}
		if err := f.usable(content); err != nil {
			klog.FromContext(ctx).Error(err, "Changed configuration file not used", "file", f.path)
			continue
		}
		return fmt.Errorf("%s has changed, and only a new start takes it up", f.path)
	}
}

// usable says why a start with the same flags and a file of that content would fail.
func (o *Options) usable(content []byte) error {
	k, _, err := decode(content)
	if err != nil {
		return err
	}
	again := *o
	again.notes = nil
	again.use(k, content)
	_, err = again.Validate()
	return err
}
